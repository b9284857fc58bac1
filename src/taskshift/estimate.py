"""How long a run will take and how much disk it will use, said before it begins and again after its first task."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from taskshift import checkpoint
from taskshift.clock import stopwatch, synchronize
from taskshift.config.build import Parts
from taskshift.randomness import random_state_kept
from taskshift.shifts.task import Task

PROBE_SECONDS = 0.2


def before(parts: Parts, first_task: int) -> str:
    """A sentence from a few training steps of a net that is thrown away; the analysis is not in it yet."""
    top, task = parts.top, parts.stream[first_task]
    num_tasks, batches = top.num_tasks - first_task, parts.stream.num_batches(task)
    seconds = num_tasks * top.epochs * batches * _step_seconds(parts, first_task)
    kept = min(top.num_tasks, top.checkpoints.keep or top.num_tasks)
    size = _bytes(parts.training.net.state_dict())
    snapshots = parts.lla.training.max_checkpoints if parts.evaluators else 0
    disk = size * (kept + snapshots) + _bytes(parts.training.state_dict())
    return (
        f"{num_tasks} tasks × {top.epochs} epochs × {batches} batches: about {duration(seconds)} of training and"
        f" {megabytes(disk)} of checkpoints; the analysis is timed at the first task's end"
    )


def after_first(parts: Parts, task_seconds: float, folder: Path) -> str:
    """A sentence from what the first task really took."""
    left = parts.top.num_tasks - 1
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    per_task = sum(path.stat().st_size for path in folder.glob("task_*/**/*") if path.is_file())
    return (
        f"the first task took {duration(task_seconds)}, its analysis included: about {duration(left * task_seconds)} to go,"
        f" and {megabytes(used + left * per_task)} on disk at the end"
    )


def _step_seconds(parts: Parts, task_index: int) -> float:
    """Seconds a training step, of a throw-away net; random state as before."""
    task, device = parts.stream[task_index], parts.device
    if parts.training.most_steps > 1:
        return _step_seconds_of_programs(parts, task)
    with random_state_kept(device):
        training = parts.make_training(0)
        training.begin(task, parts.stream.in_batches(task, task.train))
        batch = next(iter(parts.stream.apart().epoch(task, 0, actor=training)))
        begin, count = time.perf_counter(), 0
        for step in range(parts.top.epochs * parts.stream.num_batches(task)):  # no more: a schedule may end with its task
            if step == 1:  # the first allocates, and would be too slow to count
                synchronize(device)
                begin, count = time.perf_counter(), 0
            training.learn(task, batch)
            count += 1
            if step > 0 and time.perf_counter() - begin > PROBE_SECONDS:
                break
        synchronize(device)
        return (time.perf_counter() - begin) / count


def _step_seconds_of_programs(parts: Parts, task: Task) -> float:
    """The same of the run's own training, which is put back to where it was: programs belong to it."""
    training, source = parts.training, parts.stream.apart()
    before, own = checkpoint.cloned(training.state_dict()), training.schedule
    training.schedule = parts.make_training(0).schedule  # at its start, again and again: one may end with its task
    start = checkpoint.cloned(training.schedule.state_dict())
    chunk = next(source.chunks(task, 0, length=training.steps_ahead(source), actor=training))
    training.learn_all(task, chunk)  # what is recorded only now does not count
    seconds, count = 0.0, 0
    while seconds < PROBE_SECONDS:
        training.schedule.load_state_dict(start)
        with stopwatch(parts.device) as watch:
            training.learn_all(task, chunk)
        seconds, count = seconds + watch.seconds, count + len(chunk.targets)
    training.schedule = own
    training.load_state_dict(before)
    return seconds / count


def _bytes(state: object) -> int:
    """The size of every tensor in nested containers."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(_bytes(value) for value in state.values())
    return sum(_bytes(value) for value in state) if isinstance(state, list | tuple) else 0


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"


def megabytes(count: float) -> str:
    """Bytes as MB, or GB where there are many."""
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
