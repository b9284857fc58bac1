"""Sources that can be asked by index: nothing is remembered, and many batches come at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from math import prod

from torch import Tensor

from taskshift.shifts.source import Actor, Source
from taskshift.shifts.task import Batch, Task

CHUNK_EXAMPLES, CHUNK_BYTES = 1024, 2**23


class IndexedSource(Source):
    """An epoch is a list of examples by index, the same whenever it is asked for; its batches are gathered a chunk at a time."""

    @abstractmethod
    def num_examples(self, task: Task) -> int:
        """How many examples an epoch shows."""

    @abstractmethod
    def order(self, task: Task, epoch: int) -> Tensor:
        """These examples in their order, [num_examples], by the index that `gather` takes."""

    def gather_to_learn(self, task: Task, indices: Tensor, *, epoch: int, first: int) -> Batch:
        """The examples [K, B] of an epoch's batches `first`, `first` + 1 … as one batch of K·B: by default `gather`."""
        return self.gather(task, indices.flatten())

    def num_batches(self, task: Task) -> int:
        """Batches in one epoch of `task`; the last one may be smaller."""
        return -(-self.num_examples(task) // self.batch_size) - self._has_single(task)

    def _has_single(self, task: Task) -> bool:
        count = self.num_examples(task)
        return self.joins_single and count > self.batch_size > 1 and count % self.batch_size == 1

    @property
    def chunk_length(self) -> int:
        """A rule of sizes: a chunk holds some thousand examples, or 8 MB of float32."""
        return max(1, min(CHUNK_EXAMPLES, CHUNK_BYTES // (4 * prod(self.input_shape))) // self.batch_size)

    def chunks(
        self, task: Task, epoch: int, *, start: int = 0, length: int | None = None, actor: Actor | None = None
    ) -> Iterator[Batch]:
        """Each chunk by one gather and one call of the view; a last batch of another size comes alone."""
        order = self.order(task, epoch)
        for first, last in self._borders(task, length or self.chunk_length):
            if last <= start:
                continue
            size, skipped = self._batch_length(task, first), max(0, start - first)
            indices = order[first * self.batch_size :][: (last - first) * size].view(last - first, size)
            shown = self.gather_to_learn(task, indices, epoch=epoch, first=first)
            yield Batch(*(tensor.unflatten(0, indices.shape)[skipped:] for tensor in shown))

    def _borders(self, task: Task, length: int) -> Iterator[tuple[int, int]]:
        """Where chunks of at most `length` batches of one size begin and end."""
        count = self.num_batches(task)
        is_odd = count > 0 and self._batch_length(task, count - 1) != self.batch_size
        for first in range(0, count - is_odd, length):
            yield first, min(first + length, count - is_odd)
        if is_odd:
            yield count - 1, count

    def _batch_length(self, task: Task, number: int) -> int:
        is_last = number == self.num_batches(task) - 1
        return self.num_examples(task) - number * self.batch_size if is_last else self.batch_size
