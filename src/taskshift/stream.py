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
        """The training batches of one epoch from number `start` on, shuffled and augmented: views of `chunks`."""
        for chunk in self.chunks(task, epoch, start=start):
            yield from map(Batch, chunk.inputs.unbind(), chunk.targets.unbind())

    def chunks(self, task: Task, epoch: int, *, start: int = 0, length: int | None = None) -> Iterator[Batch]:
        """The same, up to `length` batches at a time: inputs [K, B, …] and targets [K, B], one gather and one call of the view.

        Chunks begin at multiples of `length` (null: `chunk_length`) wherever the epoch is entered: of the one that `start` lies
        in, what is left of it comes. A last batch of another size is a chunk of its own.
        """
        order = torch.randperm(len(task.train), generator=generator(self.seed, "order", task.index, epoch))
        shuffled = task.train[order.to(task.train.device)]
        for first, last in self._borders(task, length or self.chunk_length):
            if last > start:
                chunk, skipped = self._chunk(task, epoch, shuffled, first, last), max(0, start - first)
                yield Batch(chunk.inputs[skipped:], chunk.targets[skipped:])

    def _borders(self, task: Task, length: int) -> Iterator[tuple[int, int]]:
        """Where chunks of at most `length` batches of one size begin and end."""
        count = self.num_batches(task)
        is_odd = count > 0 and self._batch_length(task, count - 1) != self.batch_size
        for first in range(0, count - is_odd, length):
            yield first, min(first + length, count - is_odd)
        if is_odd:
            yield count - 1, count

    def _chunk(self, task: Task, epoch: int, shuffled: Tensor, first: int, last: int) -> Batch:
        """Batches `first` to `last` - 1, all of one size; the noise of an augmented one goes by its number."""
        size = self._batch_length(task, first)
        inputs, targets, indices = self._examples(shuffled[first * self.batch_size :][: (last - first) * size])
        if self.data.augment is not None:
            noise, pieces = torch.Generator(device=self.data.device), []
            for number, batch in enumerate(inputs.split(size), start=first):
                noise.manual_seed(seed_from(self.seed, "augmentation", task.index, epoch, number))
                pieces.append(self.data.augment(batch, noise))
            inputs = torch.cat(pieces)
        shown = task.view(inputs, targets, indices)
        return Batch(*(tensor.unflatten(0, (last - first, size)) for tensor in shown))

    @property
    def chunk_length(self) -> int:
        """How many batches are gathered at a time: a rule of sizes, so that a chunk holds some thousand examples or 8 MB."""
        example = max(1, self.data.inputs[:1].numel() * self.data.inputs.element_size())
        return max(1, min(CHUNK_EXAMPLES, CHUNK_BYTES // example) // self.batch_size)

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

    def gather(self, task: Task, indices: Tensor) -> Batch:
        """The examples `indices` in one batch, as `task` shows them, never augmented."""
        return task.view(*self._examples(indices))

    def _examples(self, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.data.inputs.index_select(0, indices), self.data.targets.index_select(0, indices), indices


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
