"""What a worker process does: a run of a sweep, or several together, by the functions of the script that began the sweep."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from taskshift.boundary import print_anything
from taskshift.faults import Fault, told
from taskshift.run_folder import is_held, run_folder_of
from taskshift.script import Config, JobFunction, Script

log = logging.getLogger("taskshift.sweeps")


@dataclass(frozen=True)
class Member:
    """One of the runs that a process carries out."""

    label: str
    config: Config
    overrides: Sequence[str]

    def is_done(self) -> bool:
        return run_folder_of(self.config).tasks_done() >= self.config["num_tasks"]

    def is_left(self) -> bool:
        """Whether nothing is to be done with it in a stack: it is done, has failed there, or another process is at it."""
        folder = run_folder_of(self.config)
        if is_held(folder.path):
            log.warning("%s: another process is at work on it, and it is left to that", self.label)
        elif folder.failed.exists():
            log.warning("%s: it has failed, and is left", self.label)
        elif not self.is_done():
            return False
        return True


def attempt(job: JobFunction, config: Config, overrides: Sequence[str]) -> None:
    """Call the job; what it raises is left in the run's folder, also where the run never came to open it, and raised again."""
    try:
        job(dict(config), list(overrides))
    except Exception as error:
        leave_word(config, error)
        raise


def leave_word(config: Config, error: Exception) -> None:
    """Write into the run's folder what it failed of, unless the run has done so itself or is another process's."""
    folder = run_folder_of(config)
    if not folder.failed.exists() and not is_held(folder.path):
        with suppress(OSError):  # a disk that can't be written may be what it failed of
            folder.fail_attempt(told(error))


def together(script: Script, members: Sequence[Member]) -> None:
    """Carry out several runs together; each one's failure is told as it is, and at the end a Fault names all that failed."""
    try:
        outcomes = script.together([dict(one.config) for one in members], [list(one.overrides) for one in members])
    except Exception as error:  # no single member's
        for member in members:
            if not member.is_done():
                leave_word(member.config, error)
        raise
    failed = [(one.label, error) for one, error in zip(members, outcomes, strict=True) if error is not None]
    for label, error in failed:
        log.error("%s: %s", label, told(error))
    if failed:
        raise Fault(f"{len(failed)} of {len(members)} runs failed: {'; '.join(label for label, _ in failed)}")


@dataclass(frozen=True)
class Worker:
    """One run or several, as submitit pickles it; a requeued job calls the same again, and they go on from their folders."""

    script: Script
    members: Sequence[Member]
    arguments: Sequence[str]  # the launcher's sys.argv
    directory: str  # the launcher's working directory
    max_requeues: int

    def __call__(self) -> None:
        """Carry the runs to their ends. Whatever is raised passes, so that the scheduler calls the job failed."""
        print_anything()
        os.chdir(self.directory)
        sys.argv = list(self.arguments)
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
        if len(self.members) > 1:
            self._carry_out_together()
        elif not self.members[0].is_done():  # else another job has done it meanwhile
            attempt(self._guarded, self.members[0].config, self.members[0].overrides)

    def checkpoint(self) -> Any:
        """What submitit queues when the job's time is nearly over: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _carry_out_together(self) -> None:
        """All members that are to be carried out still; raises Fault naming those that failed."""
        members = [member for member in self.members if not member.is_left()]
        try:
            self._refuse_too_many_restarts()
        except Fault as fault:
            for member in members:
                run_folder_of(member.config).fail_attempt(str(fault))
            raise
        together(self.script, members)

    def _guarded(self, config: dict[str, Any], overrides: Sequence[str]) -> None:
        """The job, unless it was requeued too often."""
        self._refuse_too_many_restarts()
        self.script.job(config, overrides)

    def _refuse_too_many_restarts(self) -> None:
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", 0))
        if restarts > self.max_requeues:
            raise Fault(
                f"this job was requeued {restarts} times, more than max_requeues = {self.max_requeues}; the same command goes on"
            )
