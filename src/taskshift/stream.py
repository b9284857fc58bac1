"""The sequence of tasks, and their examples in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from taskshift.data.labelled_data import LabelledData
from taskshift.randomness import generator, seed_from
from taskshift.shifts.task import Batch, Task, TaskShift

CHUNK_EXAMPLES, CHUNK_BYTES = 1024, 2**23


class TaskStream(Sequence[Task]):
    """Tasks by index. Every batch is a function of (seed, task, epoch, batch), so that resuming costs nothing.

    With `joins_single` a last training batch of one example joins the batch before it: batch norm can't learn from one.
    """

    joins_single = False

    def __init__(self, data: LabelledData, shift: TaskShift, *, num_tasks: int, batch_size: int, seed: int):
        self.data, self.shift, self.batch_size, self.seed = data, shift, batch_size, seed
        self._num_tasks = num_tasks

    def __len__(self) -> int:
        return self._num_tasks

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(f"task {index} was asked for; the stream has tasks 0 to {len(self) - 1}")
        return self.shift.task(self.data, index)

    def num_batches(self, task: Task) -> int:
        """Batches in one epoch of `task`; the last one may be smaller."""
        return -(-len(task.train) // self.batch_size) - self._has_single(task)

    def _has_single(self, task: Task) -> bool:
        return self.joins_single and len(task.train) > self.batch_size > 1 and len(task.train) % self.batch_size == 1

    def epoch(self, task: Task, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The training batches of one epoch from number `start` on, shuffled and augmented.

        They are views of chunks, which begin at fixed numbers wherever the epoch is entered; with augmentation, whose noise goes
        by the batch, each is made by itself.
        """
        order = torch.randperm(len(task.train), generator=generator(self.seed, "order", task.index, epoch))
        shuffled = task.train[order.to(task.train.device)]
        if self.data.augment is not None:
            yield from self._augmented(task, epoch, shuffled, start)
            return
        length, count = self.chunk_length, self.num_batches(task)
        for first in range(start - start % length, count, length):
            sizes = [self._batch_length(task, number) for number in range(first, min(first + length, count))]
            begin = first * self.batch_size
            chunk = self.gather(task, shuffled[begin : begin + sum(sizes)])
            pieces = zip(chunk.inputs.split(sizes), chunk.targets.split(sizes), strict=True)
            for number, (inputs, targets) in enumerate(pieces, start=first):
                if number >= start:
                    yield Batch(inputs, targets)

    @property
    def chunk_length(self) -> int:
        """How many batches are gathered at a time: a rule of sizes, so that a chunk holds some thousand examples or 8 MB."""
        example = max(1, self.data.inputs[:1].numel() * self.data.inputs.element_size())
        return max(1, min(CHUNK_EXAMPLES, CHUNK_BYTES // example) // self.batch_size)

    def _augmented(self, task: Task, epoch: int, shuffled: Tensor, start: int) -> Iterator[Batch]:
        noise = torch.Generator(device=self.data.device)
        for number in range(start, self.num_batches(task)):
            noise.manual_seed(seed_from(self.seed, "augmentation", task.index, epoch, number))
            begin = number * self.batch_size
            yield self.gather(task, shuffled[begin : begin + self._batch_length(task, number)], noise)

    def _batch_length(self, task: Task, number: int) -> int:
        is_last = number == self.num_batches(task) - 1
        return len(task.train) - number * self.batch_size if is_last else self.batch_size

    def batches(self, task: Task, indices: Tensor, batch_size: int | None = None) -> Iterator[Batch]:
        """The examples `indices` in their order, as `task` shows them, never augmented."""
        for part in indices.split(batch_size or self.batch_size):
            yield self.gather(task, part)

    def in_batches(self, task: Task, indices: Tensor, batch_size: int | None = None) -> Batches:
        """The same as a sequence: to be gone through again and again, and made only where it is looked at."""
        return Batches(self, task, indices.split(batch_size or self.batch_size))

    def gather(self, task: Task, indices: Tensor, noise: torch.Generator | None = None) -> Batch:
        """One batch: gathered, augmented where `noise` is given, then shifted."""
        inputs, targets = self.data.inputs.index_select(0, indices), self.data.targets.index_select(0, indices)
        if noise is not None:
            inputs = self.data.augment(inputs, noise)
        return task.view(inputs, targets, indices)


@dataclass(frozen=True)
class Batches(Sequence[Batch]):
    """Examples of a task in batches, never augmented."""

    stream: TaskStream
    task: Task
    indices: Sequence[Tensor]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Batches(self.stream, self.task, self.indices[index])
        return self.stream.gather(self.task, self.indices[index])
