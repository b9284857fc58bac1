"""The watchers within a task: single steps seen from before and after, and the rows that come of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial

import torch

from taskshift import checkpoint
from taskshift.analysis import evaluation_batches, settings_of, unchanged
from taskshift.clock import stopwatch
from taskshift.evaluators.watcher import WatchedStep, Watcher
from taskshift.job import Job
from taskshift.learners.forward import eval_mode, show
from taskshift.learners.learner import State
from taskshift.measure import guarded
from taskshift.randomness import random_state_kept, seed_from
from taskshift.shifts.task import Batch, Task


def borders(watchers: Iterable[Watcher], first: int, last: int) -> set[int]:
    """The steps of a task between `first` and `last` before which and after which a chunk ends: a watched one is alone."""
    return {
        border
        for watcher in watchers
        for step in range(-(-first // watcher.every) * watcher.every, last, watcher.every)
        for border in (step, step + 1)
        if first < border < last
    }


def state_before(job: Job, number: int) -> State | None:
    """A copy of the learner's state before step `number` of the task; None where no watcher looks at that step."""
    return checkpoint.cloned(job.parts.training.state) if _whose_turn(job, number) else None


def watch(job: Job, task: Task, *, number: int, before: State, batch: Batch) -> None:
    """Let every watcher whose turn it is look at the step that was just made; log what they found as one row."""
    found: dict[str, float] = {}
    step = _watched(job, task, number, before, batch)
    for name in _whose_turn(job, number):
        failed = job.folder.analysis(task.index, "end") / name / "FAILED"
        if str(failed.relative_to(job.folder.path)) in job.failed:  # once a task is enough
            continue
        who = f"the watcher {name} at step {number} of task {task.index}"
        guarded(job, failed, who, f"'~watch.{name}'", partial(_look, job, name, step, found))
    if found:
        job.log(task.index * job.parts.top.epochs + job.progress.epoch, task, found)


def _whose_turn(job: Job, number: int) -> dict[str, Watcher]:
    return {name: watcher for name, watcher in job.parts.watchers.items() if number % watcher.every == 0}


def _watched(job: Job, task: Task, number: int, before: State, batch: Batch) -> WatchedStep:
    parts, training = job.parts, job.parts.training
    return WatchedStep(
        task,
        number,
        batch,
        training.learner,
        before,
        training.state,
        parts.top.seed,
        settings_of(parts.lla),
        cache(partial(evaluation_batches, parts, task)),
    )


def _look(job: Job, name: str, step: WatchedStep, found: dict[str, float]) -> None:
    """Add what one watcher finds, under its full names."""
    who, instead = f"the watcher {name}", "it may change copies only"
    with (
        unchanged(job.parts.training, job.parts.stream, who=who, instead=instead),
        stopwatch(job.parts.device) as clock,
        _standing_before(job, step),
        _seeded(job, name, step),
    ):
        numbers = job.parts.watchers[name](step)
        step.net.zero_grad(set_to_none=True)
    found |= {f"{name}/{key}": value for key, value in numbers.items()} | {f"{name}/seconds": clock.seconds}


@contextmanager
def _standing_before(job: Job, step: WatchedStep) -> Iterator[None]:
    """Let the learner's net stand where it stood before the step, in eval mode."""
    show(step.net, step.before["net"])
    try:
        with eval_mode(step.net):
            yield
    finally:
        job.parts.training.hide()


@contextmanager
def _seeded(job: Job, name: str, step: WatchedStep) -> Iterator[None]:
    with random_state_kept(job.parts.device):
        torch.manual_seed(seed_from(job.parts.top.seed, "watcher", step.task.index, step.number, name, "torch"))
        yield
