"""Runs carried out by other processes, through submitit: some at a time on this machine, or as a job array on SLURM."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from datetime import datetime
from io import StringIO
from math import ceil
from pathlib import Path
from typing import Any

from submitit import AutoExecutor, Job
from submitit.core.utils import FailedJobError

from taskshift.faults import Fault
from taskshift.run_folder import is_held, run_folder_of
from taskshift.sweeps.launch import Sweep, label_of
from taskshift.sweeps.plan import PlannedRun
from taskshift.sweeps.stacks import Stack
from taskshift.sweeps.states import OPEN, RunState, states

log = logging.getLogger("taskshift.sweeps")

SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_BETWEEN_QUESTIONS = 2.0  # to the scheduler
NO_LIMIT = 60 * 24 * 365  # minutes
GO_ON = ("timed out", "preempted")
"""How a job may end through nobody's fault: its run is queued again."""


@dataclass(frozen=True)
class LocalWorkers:
    """`workers` processes at a time on this machine, each with one GPU of its own where there are GPUs."""

    workers: int
    num_gpus: int
    cluster: str = "local"

    def fitting(self, number: int, block: int) -> int:
        """As leaves no worker idle."""
        return ceil(number / self.workers)

    def carry_out(self, sweep: Sweep, stacks: Sequence[Stack]) -> None:
        make_importable(sweep.code())
        waiting, busy = list(stacks), {}
        try:
            while waiting or busy:
                for place in range(self.workers):
                    if place not in busy and waiting:
                        busy[place] = self._begin(sweep, waiting.pop(0), place)
                busy = {place: (stack, job) for place, (stack, job) in busy.items() if not _is_over(stack, job)}
                time.sleep(SECONDS_BETWEEN_LOOKS)
        except BaseException:
            for _, job in busy.values():
                job.cancel()  # a process of ours; its runs go on from their checkpoints when the command is given again
            raise

    def _begin(self, sweep: Sweep, stack: Stack, place: int) -> tuple[Stack, Job[None]]:
        # a folder of its own: a process's number may come again, and with it an old job's result
        folder = sweep.folder.submitted / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{stack[0].key}"
        executor = AutoExecutor(folder / "%j", cluster="local")
        gpus = {"gpus_per_node": 1, "visible_gpus": (place % self.num_gpus,)} if self.num_gpus else {}
        executor.update_parameters(timeout_min=NO_LIMIT, **gpus)
        with _errors_into(folder / "stderr.txt"):
            job = executor.submit(sweep.handed_over(stack))
        sweep.note({run.key: job.job_id for run in stack}, self.cluster)
        log.info("%s: process %s", label_of(stack), job.job_id)
        return stack, job


@dataclass(frozen=True)
class Slurm:
    """A job array; `parameters` are submitit's words, which puts slurm_ before those of SLURM alone."""

    detach: bool
    parameters: Mapping[str, Any] = field(default_factory=dict)
    cluster: str = "slurm"

    def fitting(self, number: int, block: int) -> int:
        """As leaves none of the jobs that may run at a time idle, but for what one program does as fast as for a single run."""
        return max(block, ceil(number / self.parameters["slurm_array_parallelism"]))

    def carry_out(self, sweep: Sweep, stacks: Sequence[Stack]) -> None:
        make_importable(sweep.code())
        waiting = list(stacks)
        for _ in range(sweep.max_requeues + 1):
            if waiting:
                self._queue(sweep, waiting)
            if self.detach:
                return
            found = _waited_for(sweep, sweep.plan.runs)  # those of an earlier call that are still at work too
            going_on = [[run for run in stack if found[run.key].state in GO_ON] for stack in waiting]
            waiting = [stack for stack in going_on if stack]
            if not waiting:
                return
            log.info("%d runs were cut off and are queued again", sum(map(len, waiting)))

    def _queue(self, sweep: Sweep, stacks: Sequence[Stack]) -> None:
        executor = AutoExecutor(sweep.folder.submitted / "%j", cluster="slurm", slurm_max_num_timeout=sweep.max_requeues)
        executor.update_parameters(name=sweep.plan.name, **self.parameters)
        sweep.queueing(stacks)
        try:
            with redirect_stderr(StringIO()), executor.batch():  # what sbatch says comes in the error as well
                jobs = [executor.submit(sweep.handed_over(stack)) for stack in stacks]
        except FailedJobError as error:
            sweep.note({}, self.cluster)
            raise Fault(f"SLURM refused the jobs, and nothing is queued: {sbatch_said(str(error))}") from error
        queued = zip(stacks, jobs, strict=True)
        sweep.note({run.key: job.job_id for stack, job in queued for run in stack}, self.cluster)
        log.info("%d jobs queued: %s", len(jobs), jobs[0].job_id.partition("_")[0])


@contextmanager
def _errors_into(file: Path) -> Iterator[None]:
    """What processes begun meanwhile print as errors goes into a file: submitit's own end in a traceback at Ctrl-C."""
    here = os.dup(2)
    with file.open("w", encoding="utf-8") as opened:
        os.dup2(opened.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(here, 2)
        os.close(here)


def _is_over(stack: Stack, job: Job[None]) -> bool:
    if not job.done():
        return False
    error = job.exception()
    log.info("%s: %s", label_of(stack), "done" if error is None else "not done")
    for folder in (run_folder_of(run.config) for run in stack):
        said = folder.failed.exists() or folder.done.exists() or is_held(folder.path)
        if isinstance(error, FailedJobError) and not said:  # it raised before it came to the run
            folder.path.mkdir(parents=True, exist_ok=True)
            folder.fail_attempt(str(error))
    return True


def make_importable(code: Path) -> None:
    """Let processes that this one starts, and jobs it queues, find the packages in `code`."""
    source = os.fspath(code.resolve())
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join([source, *(folder for folder in others if folder not in ("", source))])


def _waited_for(sweep: Sweep, runs: Sequence[PlannedRun]) -> dict[str, RunState]:
    """How the runs stand when none of them is at work or queued any more."""
    told: dict[str, str] = {}
    while True:
        found = states(sweep.folder, launching=False)
        for run in runs:
            if found[run.key].state != told.get(run.key):
                told[run.key] = found[run.key].state
                log.info("%s: %s", run.label, told[run.key])
        if not any(found[run.key].state in OPEN for run in runs):
            return found
        time.sleep(SECONDS_BETWEEN_QUESTIONS)


def sbatch_said(text: str) -> str:
    """sbatch's own sentence out of submitit's report."""
    found = re.search(r"sbatch: error: (?!Batch job)(.*)", text) or re.search(r"sbatch: (?:fatal|error): (.*)", text)
    return found[1].strip() if found else text.strip().splitlines()[-1]
