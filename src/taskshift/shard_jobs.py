"""A measurement as jobs of SLURM: what its shards share, an array of shards, and what puts them together."""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from taskshift.config.build import build_parts
from taskshift.faults import Fault
from taskshift.intact import read_json, write_json
from taskshift.measured import Order, analysis_of, take_identity
from taskshift.run_folder import held
from taskshift.shards import missing, run_shard, unfinished

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 5.0

Call = Callable[[], Any]


class Cluster(Protocol):
    """Where jobs are queued."""

    detach: bool  # whether nobody waits for them

    def queue(self, name: str, calls: Sequence[Call], after: str | None) -> str:
        """Queue one job a call, an array of several, to begin when the job `after` has ended well; the id of the job."""

    def has(self, jobs: Sequence[str]) -> bool:
        """Whether any of the jobs is pending or running."""


def carry_out(order: Order, cluster: Cluster, finish: Callable[[Order], Any]) -> None:
    """Queue all that is missing of a measurement and wait for it: the shards, then `finish`, which puts them together.

    Jobs that an earlier call has queued are waited for, and nothing is queued beside them. Whatever this process's end, the jobs
    go on. Raises Fault where they have ended and something is missing still, and before anything is queued for what the checks
    find.
    """
    build_parts({**order.config, "device": "cpu"})  # what begins the jobs need not have their GPU
    with held(order.folder.path / "jobs", "give another name=…"):
        jobs = _queued_before(order)
        if jobs and cluster.has(jobs):
            log.info("at work already as %s, into %s", ", ".join(jobs), order.folder.path)
        else:
            jobs = queue(order, cluster, finish)
            write_json(_note(order), {"jobs": jobs})
            log.info("queued as %s, into %s", ", ".join(jobs), order.folder.path)
        if cluster.detach:
            return
        while cluster.has(jobs):
            time.sleep(SECONDS_BETWEEN_LOOKS)
    _refuse_unfinished(order)


def _note(order: Order) -> Path:
    """The file that says which jobs were queued last."""
    return order.folder.path / "jobs" / "queued.json"


def _queued_before(order: Order) -> list[str]:
    note = _note(order)
    return read_json(note, "see by squeue whether its jobs are there, then delete it")["jobs"] if note.exists() else []


def queue(order: Order, cluster: Cluster, finish: Callable[[Order], Any]) -> list[str]:
    """Queue what is missing; the ids of the jobs, each of which begins when the one before has ended well."""
    left = [(task, shard) for task in order.tasks for shard in missing(order, task)]
    jobs: list[str] = []
    if left:
        jobs.append(cluster.queue("prepare", [functools.partial(prepare, order)], None))
        folder = order.folder.path.resolve()
        calls = [functools.partial(run_shard, folder, task, order.phase, shard) for task, shard in left]
        jobs.append(cluster.queue("shards", calls, jobs[-1]))
    call = functools.partial(finish, order)
    return [*jobs, cluster.queue("finish", [call], jobs[-1] if jobs else None)]


def prepare(order: Order) -> None:
    """Compute what the shards of a measurement share."""
    parts = build_parts(order.config)
    with held(order.folder.path, "give another name=…"):
        take_identity(order, parts)
        for task in order.tasks:
            analysis_of(order, parts, task).prepare()


def _refuse_unfinished(order: Order) -> None:
    left = {task: names for task in order.tasks if (names := unfinished(order, task))}
    if left:
        raise Fault(
            *(f"task {task}: {', '.join(names)} did not finish" for task, names in left.items()),
            f"the logs are in {order.folder.path / 'jobs'}; what is finished is kept, and the same command goes on from there",
        )


class Restartable:
    """Calls a function in a job; a job that was cut off is queued again, and goes on with what it has kept."""

    def __init__(self, call: Call):
        self.call, self.directory = call, os.getcwd()

    def __call__(self) -> None:
        os.chdir(self.directory)
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
        self.call()

    def checkpoint(self) -> Any:
        """What submitit queues in its place."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True)
class Slurm:
    """Jobs by sbatch, with these parameters of submitit's; its logs and pickles go to `folder`."""

    folder: Path
    parameters: Mapping[str, Any]
    max_requeues: int
    detach: bool = False

    def queue(self, name: str, calls: Sequence[Call], after: str | None) -> str:
        from submitit import AutoExecutor
        from submitit.core.utils import FailedJobError

        from taskshift.sweeps.carriers import sbatch_said

        executor = AutoExecutor(self.folder / "%j", cluster="slurm", slurm_max_num_timeout=self.max_requeues)
        executor.update_parameters(name=name, **self.parameters)
        executor.update_parameters(**_only_after(after, self.parameters))
        try:
            with executor.batch():
                jobs = [executor.submit(Restartable(call)) for call in calls]
        except FailedJobError as error:
            raise Fault(f"SLURM refused the jobs of {name}: {sbatch_said(str(error))}") from error
        return jobs[0].job_id.partition("_")[0]

    def has(self, jobs: Sequence[str]) -> bool:
        """Whether SLURM has any of them still; one that it does not know has ended. Where it does not answer: yes."""
        asked = subprocess.run(
            ["squeue", "--noheader", "--format=%A", f"--jobs={','.join(jobs)}"], capture_output=True, text=True
        )
        return bool(asked.stdout.strip()) or (asked.returncode != 0 and "Invalid job id" not in asked.stderr)


def _only_after(job: str | None, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What lets a job begin when `job` has ended well, and drops it where that can't come any more."""
    if job is None:
        return {}
    further = dict(parameters.get("slurm_additional_parameters", {}))
    return {"slurm_dependency": f"afterok:{job}", "slurm_additional_parameters": further | {"kill-on-invalid-dep": "yes"}}
