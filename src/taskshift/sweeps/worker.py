"""What a worker process does: one run of a sweep, by the job function of the script that began the sweep."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from taskshift.boundary import print_anything
from taskshift.faults import Fault
from taskshift.run_folder import is_held, run_folder_of

JobFunction = Callable[[dict[str, Any], Sequence[str]], Any]
"""A script's own: (config, overrides) → whatever."""


def attempt(job: JobFunction, config: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Call the job; what it raises is left in the run's folder, also where the run never came to open it, and raised again."""
    try:
        job(dict(config), list(overrides))
    except Exception as error:
        folder = run_folder_of(config)
        if not folder.failed.exists() and not is_held(folder.path):
            with suppress(OSError):  # a disk that can't be written may be what it failed of
                folder.fail_attempt(str(error) if isinstance(error, Fault) else "".join(traceback.format_exception(error)))
        raise


@dataclass(frozen=True)
class Worker:
    """One run, as submitit pickles it; a requeued job calls the same again, and the run goes on from its folder."""

    job: JobFunction
    config: Mapping[str, Any]
    overrides: Sequence[str]
    arguments: Sequence[str]  # the launcher's sys.argv
    directory: str  # the launcher's working directory
    max_requeues: int

    def __call__(self) -> None:
        """Carry the run to its end. Whatever it raises passes, so that the scheduler calls the job failed."""
        print_anything()
        os.chdir(self.directory)
        sys.argv = list(self.arguments)
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
        if run_folder_of(self.config).tasks_done() < self.config["num_tasks"]:  # else another job has done it meanwhile
            attempt(self._guarded, self.config, self.overrides)

    def checkpoint(self) -> Any:
        """What submitit queues when the job's time is nearly over: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _guarded(self, config: dict[str, Any], overrides: Sequence[str]) -> None:
        """The job, unless it was requeued too often."""
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", 0))
        if restarts > self.max_requeues:
            raise Fault(
                f"this job was requeued {restarts} times, more than max_requeues = {self.max_requeues}; the same command goes on"
            )
        self.job(config, overrides)
