"""Running the evaluators at a task's start and end, so that they leave no trace and never run twice."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import operator
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from loss_landscape import HessianOperator, eigenpairs
from loss_landscape.lanczos import Eigenpairs
from taskshift import checkpoint, estimate, trajectory
from taskshift.clock import peak_memory_mb, stopwatch
from taskshift.evaluation import eval_mode
from taskshift.evaluators.evaluator import Evaluator, Findings, Measurement, Phase
from taskshift.faults import Fault
from taskshift.job import Job
from taskshift.learners.learner import Learner
from taskshift.randomness import generator, seed_from
from taskshift.recorders.numbers import scalar
from taskshift.shifts.task import Batch, Task

log = logging.getLogger(__name__)


def measure(job: Job, task: Task, phase: Phase) -> None:
    """Run what is missing of the phase's evaluators, assemble the task's row from their files, go on to the next phase."""
    if not job.is_at(phase):
        return
    found = _evaluated(job, task, phase) if job.analyses(task, phase) else {}
    if phase == "start":
        if found:
            job.log(task.index * job.parts.top.epochs, task, {f"start/{name}": value for name, value in found.items()})
        job.move(phase="train")
    else:
        job.log((task.index + 1) * job.parts.top.epochs - 1, task, _last_epoch(job) | _costs(job) | found)
        if task.index == 0 and job.parts.top.num_tasks > 1:
            log.info(estimate.after_first(job.parts, job.seconds_on_task(), job.folder.path))
        job.next_task()
    job.last_eigenpairs = _kept_eigenpairs(job, task, phase) or job.last_eigenpairs
    job.save()
    job.tidy()


def _last_epoch(job: Job) -> dict[str, float]:
    """The last epoch's training metrics under the names of the task's row."""
    row = job.task_rows[-1]
    return {f"task_last_{name}": value for name, value in row.items() if name.startswith("epoch_")}


def _costs(job: Job) -> dict[str, float]:
    return {"task/seconds": job.seconds_on_task(), "task/memory_mb": peak_memory_mb(job.parts.device)}


# -- the evaluators ---------------------------------------------------------------------------------------------


def _evaluated(job: Job, task: Task, phase: Phase) -> dict[str, float]:
    """Every evaluator's numbers, under their full names."""
    folder = job.folder.analysis(task.index, phase)
    missing = {name: e for name, e in job.parts.evaluators.items() if not (folder / name / "findings.json").exists()}
    if missing:
        with eval_mode(job.parts.learner.net):
            measurement = _measurement(job, task, phase, folder)
            if any(evaluator.request for evaluator in missing.values()):
                job.tick(task, "eigenpairs")
                _ = measurement.requested_eigenpairs  # now, so that its time is no evaluator's
            for name, evaluator in missing.items():
                job.tick(task, name)
                _run_guarded(job, name, evaluator, measurement, folder)
        shutil.rmtree(folder / ".scratch", ignore_errors=True)
    return _eigenpairs_cost(job, task, phase) | _found(job, folder)


def _found(job: Job, folder: Path) -> dict[str, float]:
    """What the evaluators wrote; one that failed and was marked wrote nothing."""
    paths = {name: folder / name / "findings.json" for name in job.parts.evaluators}
    numbers = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    return {f"{name}/{key}": value for name, found in numbers.items() for key, value in found.items()}


def _measurement(job: Job, task: Task, phase: Phase, folder: Path) -> Measurement:
    parts = job.parts
    return Measurement(
        task=task,
        phase=phase,
        learner=parts.learner,
        stream=parts.stream,
        batches=_evaluation_batches(job, task),
        trajectory=trajectory.points(job.folder, task.index) if phase == "end" else (),
        rows=tuple(job.task_rows),
        initial=checkpoint.load(job.folder.initial, parts.device),
        scratch=folder / ".scratch",
        seed=parts.top.seed,
        epochs=parts.top.epochs,
        dtype=getattr(torch, parts.lla.dtype),
        memory_budget_mb=parts.lla.memory_budget_mb,
        solve=lambda measurement: _solved(job, measurement),
        make_learner=parts.make_learner,
        tolerance=parts.lla.tolerance,
        compile=parts.lla.compile,
        abort_if_estimated_hours_over=parts.lla.runtime.abort_if_estimated_hours_over,
    )


def _evaluation_batches(job: Job, task: Task) -> list[Batch]:
    """The same batches for every evaluator of a task: a seeded subset of its training examples, never augmented."""
    options = job.parts.lla.evaluation_data
    order = torch.randperm(len(task.train), generator=generator(options.fixed_eval_seed, "evaluation data"))
    count = max(1, round(options.dataset_fraction_for_landscape * len(order)))
    if options.num_batches is not None:
        count = min(count, options.num_batches * options.eval_batch_size)
    chosen = task.train[order[:count].to(task.train.device)]
    return list(job.parts.stream.batches(task, chosen, options.eval_batch_size))


def _run_guarded(job: Job, name: str, evaluator: Evaluator, measurement: Measurement, folder: Path) -> None:
    """Run one evaluator; where it fails, name it, and stop or mark as `lla.on_error` says."""
    at = f"the evaluator {name} at the {measurement.phase} of task {measurement.task.index}"
    try:
        _run_one(name, evaluator, measurement, folder)
    except Exception as error:
        if job.parts.lla.on_error == "stop":
            where = f"in {at}; to go on without it: {job.resume_command} lla.enable_{name}=false"
            if isinstance(error, Fault):  # what the user can mend is told in sentences, without a traceback
                raise Fault(*error.sentences, where) from error
            error.add_note(where)
            raise
        (folder / name).mkdir(parents=True, exist_ok=True)
        checkpoint.write_text(folder / name / "FAILED", traceback.format_exc())
        job.failed.append(str((folder / name / "FAILED").relative_to(job.folder.path)))
        log.error("%s failed (%s: %s); marked, going on", at, type(error).__name__, error)


def _run_one(name: str, evaluator: Evaluator, measurement: Measurement, folder: Path) -> None:
    own = measurement.for_evaluator(name)
    own.scratch.mkdir(parents=True, exist_ok=True)
    with _seeded(own, name), _unchanged(own.learner, name), stopwatch(own.stream.data.device) as watch:
        findings = evaluator(own)
        own.learner.net.zero_grad(set_to_none=True)
    _write(folder / name, findings, watch.seconds)
    shutil.rmtree(own.scratch)


def _write(folder: Path, findings: Findings, seconds: float) -> None:
    """Put an evaluator's files and numbers into its folder, all or none of them."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name, artifact in findings.artifacts.items():
        path = partial / name
        path.parent.mkdir(parents=True, exist_ok=True)
        artifact(path)
    numbers = {key: scalar(key, value) for key, value in findings.scalars.items()} | {"seconds": seconds}
    checkpoint.write_text(partial / "findings.json", json.dumps(numbers, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)  # what an earlier, failed attempt left
    partial.rename(folder)


# -- the eigenpairs, solved once --------------------------------------------------------------------------------


def _solved(job: Job, measurement: Measurement) -> Eigenpairs:
    """The eigenpairs for the largest request: from disk where they are, else by Lanczos from the last task's vectors."""
    path, device = job.folder.eigenpairs(measurement.task.index, measurement.phase), job.parts.device
    if path.exists():
        return _loaded(path, device)
    request = functools.reduce(operator.or_, (evaluator.request for evaluator in job.parts.evaluators.values()))
    last = job.last_eigenpairs
    with stopwatch(device) as watch:
        pairs = eigenpairs(
            HessianOperator(measurement.surface, memory_budget_mb=measurement.memory_budget_mb),
            top=request.top,
            bottom=request.bottom,
            tolerance=request.tolerance,
            generator=measurement.generator("eigenpairs"),
            start=None if last is None else _loaded(job.folder.path / last, device).vectors,
        )
    state = {field.name: getattr(pairs, field.name) for field in dataclasses.fields(pairs)}
    checkpoint.save(path, {"pairs": state, "seconds": watch.seconds})
    return pairs


def _loaded(path: Path, device: torch.device) -> Eigenpairs:
    return Eigenpairs(**checkpoint.load(path, device)["pairs"])


def _kept_eigenpairs(job: Job, task: Task, phase: Phase) -> str | None:
    """This phase's eigenpairs, from which the next ones start, below the run's folder."""
    path = job.folder.eigenpairs(task.index, phase)
    return str(path.relative_to(job.folder.path)) if path.exists() else None


def _eigenpairs_cost(job: Job, task: Task, phase: Phase) -> dict[str, float]:
    path = job.folder.eigenpairs(task.index, phase)
    if not path.exists():
        return {}
    kept = checkpoint.load(path)
    return {"eigenpairs/seconds": kept["seconds"], "eigenpairs/products": kept["pairs"]["products"]}


# -- no trace ---------------------------------------------------------------------------------------------------


@contextmanager
def _seeded(measurement: Measurement, name: str) -> Iterator[None]:
    """Give the evaluator a random state of its own, and the run its own back."""
    device = measurement.stream.data.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed_from(measurement.seed, "evaluator", measurement.task.index, measurement.phase, name, "torch"))
        yield


@contextmanager
def _unchanged(learner: Learner, name: str) -> Iterator[None]:
    """Compare the learner before and after; put it back and name the evaluator where it was changed."""
    before = checkpoint.cloned(learner.state_dict())
    yield
    changed = checkpoint.first_difference(before, learner.state_dict())
    if changed is not None:
        learner.load_state_dict(before)
        raise RuntimeError(
            f"the evaluator {name} changed the learner's {changed}; it may change copies only, see fresh_learner()"
        )
