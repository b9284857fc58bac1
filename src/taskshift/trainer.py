"""Training on one task, from wherever it was cut off."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from taskshift import trajectory, watching
from taskshift.evaluation import averages
from taskshift.job import Job
from taskshift.learners.learner import Steps
from taskshift.progress import EpochSums, of_steps
from taskshift.shifts.task import Batch, Task
from taskshift.training import Training

TEST_BATCH_SIZE = 256  # a constant: the batch size of training must not change a test's last bits


class Wish(NamedTuple):
    """Batches [K, B, …] of a task that a training is to learn from next."""

    training: Training
    task: Task
    batches: Batch

    def granted(self) -> Steps:
        """They are learned from by the training alone."""
        return self.training.learn_all(self.task, self.batches)


Wishes = Generator[Wish, Steps, None]
"""Work that says what is to be learned from, and goes on when it is given what the steps left behind."""


def train(job: Job, task: Task) -> None:
    """Carry the task's epochs to their end; log a row an epoch."""
    wishes = wishes_of(job, task)
    wish = next(wishes, None)
    while wish is not None:
        try:
            wish = wishes.send(wish.granted())
        except StopIteration:
            return


def wishes_of(job: Job, task: Task) -> Wishes:
    """The same, by somebody who grants the wishes."""
    if not job.is_at("train"):
        return
    if job.progress.epoch == 0 and job.progress.batch == 0:
        batches = job.parts.stream.in_batches(task, task.train)
        job.sums.note(job.parts.training.begin(task, batches))
    for epoch in range(job.progress.epoch, job.parts.top.epochs):
        yield from _train_epoch(job, task, epoch)
        _finish_epoch(job, task, epoch)
    job.keep_net(task)
    job.move(phase="end", epoch=0, batch=0)
    job.end_phase(measured=job.analyses(task, "end"))


def _train_epoch(job: Job, task: Task, epoch: int) -> Wishes:
    training, snapshots = job.parts.training, job.trajectory_steps(task)
    first = epoch * job.parts.stream.num_batches(task)
    for batches in _in_a_row(job, task, epoch, snapshots):
        number = first + job.progress.batch
        if number in snapshots:
            trajectory.keep_point(job.folder, task.index, number, training.net)
        before = watching.state_before(job, number)
        steps = yield Wish(training, task, batches)
        _count(job, task, steps, batches.targets)
        if before is not None:
            watching.watch(job, task, number=number, before=before, batch=Batch(batches.inputs[0], batches.targets[0]))
        job.move(batch=job.progress.batch + len(batches.targets))
        job.tick(task)
        job.save_if_due()


def _in_a_row(job: Job, task: Task, epoch: int, snapshots: Collection[int]) -> Iterator[Batch]:
    """The epoch's batches from where the run stands, inputs [K, B, …], as many at a time as one call learns from."""
    stream, start = job.parts.stream, job.progress.batch
    at = epoch * stream.num_batches(task) + start
    for chunk in job.parts.training.in_a_row(stream, task, epoch, start=start):
        last = at + len(chunk.targets)
        if last == at + 1:
            yield chunk
        else:
            borders = {step for step in snapshots if at < step < last} | watching.borders(job.parts.watchers.values(), at, last)
            yield from _cut(chunk, at, borders, job.parts.top.log_every)
        at = last


def _cut(chunk: Batch, first: int, borders: Collection[int], log_every: int | None) -> Iterator[Batch]:
    """The batches of a chunk that begins at step `first` of the task, cut before the steps `borders` and where a row is due."""
    last = first + len(chunk.targets)
    due = range(first - first % log_every + log_every, last, log_every) if log_every else ()
    sizes = [end - begin for begin, end in pairwise([first, *sorted({*borders, *due}), last])]
    yield from map(Batch, chunk.inputs.split(sizes), chunk.targets.split(sizes))


def _count(job: Job, task: Task, steps: Steps, targets: Tensor) -> None:
    """Add steps to the epoch's sums, and to those of their bin; log the bin's row where it is full, or the task is over."""
    (count, size), every = targets.shape[:2], job.parts.top.log_every
    values = of_steps(task, steps, targets.flatten(0, 1))
    job.sums.add_values(size, values)
    job.sums.note(steps.numbers)
    if every is None:
        return
    job.bin.add_values(size, values)
    per_epoch = job.parts.stream.num_batches(task)
    done = job.progress.epoch * per_epoch + job.progress.batch + count  # steps of the task
    if done % every == 0 or done == job.parts.top.epochs * per_epoch:
        means = {f"bin_{name}": value for name, value in job.bin.means().items()}
        job.log(task.index * job.parts.top.epochs + job.progress.epoch, task, means)
        job.bin = EpochSums()


def _finish_epoch(job: Job, task: Task, epoch: int) -> None:
    means, top = job.sums.means(), job.parts.top
    job.sums.note(job.parts.training.end_epoch(task, means))
    metrics = {f"epoch_{name}": value for name, value in means.items()}
    metrics |= {f"learner/{name}": value for name, value in job.sums.totals().items()}
    if epoch == 0 or (epoch + 1) % top.evaluate_every == 0:  # how well a task begins says much about plasticity
        metrics |= _judged(job, task)
    job.log(task.index * top.epochs + epoch, task, metrics)
    job.sums = EpochSums()
    job.move(epoch=epoch + 1, batch=0)
    last = (epoch + 1) * job.parts.stream.num_batches(task)
    if epoch + 1 == top.epochs and last in job.trajectory_steps(task):
        trajectory.keep_point(job.folder, task.index, last, job.parts.training.net)


def _judged(job: Job, task: Task) -> dict[str, float]:
    """The net's loss and metrics on the task's examples that it does not learn from, and what else the source judges it by."""
    stream, net, found = job.parts.stream, job.parts.training.net, {}
    for split, examples in (("val", task.validation), ("test", task.test)):
        if len(examples):
            means = averages(net, task, stream.batches(task, examples, TEST_BATCH_SIZE))
            found |= {f"{split}_{name}": value for name, value in means.items()}
    return found | {f"test_{name}": value for name, value in stream.scores(task, net).items()}
