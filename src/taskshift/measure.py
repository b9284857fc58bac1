"""The evaluators at a task's start and end, and the row of the record that comes of them."""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable
from pathlib import Path

from taskshift import estimate
from taskshift.analysis import Analysis, told_where
from taskshift.clock import peak_memory_mb
from taskshift.evaluators.evaluator import MeasuredPhase
from taskshift.intact import write_text
from taskshift.job import Job
from taskshift.shifts.task import Task

log = logging.getLogger(__name__)


def measure(job: Job, task: Task, phase: MeasuredPhase) -> None:
    """Run what is missing of the phase's evaluators, assemble the task's row from their files, go on to the next phase."""
    if not job.is_at(phase):
        return
    if is_measured := job.analyses(task, phase):
        job.save_nets()
    found = _analysed(job, task, phase) if is_measured else {}
    if phase == "start":
        if found:
            job.log(task.index * job.parts.top.epochs, task, {f"start/{name}": value for name, value in found.items()})
        job.move(phase="train")
    else:
        job.log((task.index + 1) * job.parts.top.epochs - 1, task, _last_epoch(job) | _costs(job) | found)
        if task.index == 0 and job.parts.top.num_tasks > 1 and job.stack is None:
            log.info(estimate.after_first(job.parts, job.seconds_on_task(), job.folder.path))
        job.next_task()
    job.last_eigenpairs = _kept_eigenpairs(job, task, phase) or job.last_eigenpairs
    if job.end_phase(measured=is_measured):
        job.tidy()


def _last_epoch(job: Job) -> dict[str, float]:
    """The last epoch's training metrics under the names of the task's row."""
    row = job.task_rows[-1]
    return {f"task_last_{name}": value for name, value in row.items() if name.startswith("epoch_")}


def _costs(job: Job) -> dict[str, float]:
    return {"task/seconds": job.seconds_on_task(), "task/memory_mb": peak_memory_mb(job.parts.device)}


def _analysed(job: Job, task: Task, phase: MeasuredPhase) -> dict[str, float]:
    """Every evaluator's numbers, under their full names."""
    analysis = Analysis(
        job.parts,
        task,
        phase,
        job.folder.analysis(task.index, phase),
        eigenpairs_file=job.folder.eigenpairs(task.index, phase),
        initial=job.folder.initial,
        start_vectors=None if job.last_eigenpairs is None else job.folder.path / job.last_eigenpairs,
        trajectory=job.snapshots(task) if phase == "end" else (),
        rows=tuple(job.task_rows),
        earlier=job.earlier_nets(task),
        tick=functools.partial(job.tick, task),
    )
    return analysis.run(functools.partial(_evaluated, job, analysis))


def _evaluated(job: Job, analysis: Analysis, name: str, evaluate: Callable[[], None]) -> None:
    guarded(job, analysis.folder / name / "FAILED", analysis.at(name), f"lla.enable_{name}=false", evaluate)


def guarded(job: Job, failed: Path, who: str, without: str, measure_it: Callable[[], None]) -> None:
    """Let an evaluator or a watcher measure; where it fails, say `who` it was, and stop or mark as `lla.on_error` says.

    A stopped run goes on `without` it, a word of the command; a mark is the file `failed`.
    """
    if job.parts.lla.on_error == "stop":
        with told_where(f"in {who}; to go on without it: {job.resume_command} {without}"):
            measure_it()
        return
    try:
        measure_it()
    except Exception as error:
        failed.parent.mkdir(parents=True, exist_ok=True)
        write_text(failed, traceback.format_exc())
        job.failed.append(str(failed.relative_to(job.folder.path)))
        log.error("%s failed (%s: %s); marked, going on", who, type(error).__name__, error)


def _kept_eigenpairs(job: Job, task: Task, phase: MeasuredPhase) -> str | None:
    """This phase's eigenpairs, from which the next ones start, below the run's folder."""
    path = job.folder.eigenpairs(task.index, phase)
    return str(path.relative_to(job.folder.path)) if path.exists() else None
