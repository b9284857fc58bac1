"""Where a run's batches come from."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from taskshift.quantities import Quantity
from taskshift.shifts.task import Batch, Task


@dataclass(frozen=True)
class StreamSettings:
    """What a run says of its stream, whatever that is made of."""

    num_tasks: int
    batch_size: int
    seed: int
    device: torch.device | str = "cpu"


class Actor(Protocol):
    """What acts in an environment: a training, whose net is the present one at each look."""

    @property
    def net(self) -> nn.Module: ...


class Source(Sequence[Task], ABC):
    """Tasks by index, and the batches that they are learned from and judged by.

    A supervised or generated stream keeps no state: each batch is a function of (seed, task, epoch, number), so that resuming and
    looking ahead cost nothing. An environment rolls out the learner, a batch a chunk; all that its next batch depends on is in
    `state_dict`, and is complete whenever a batch is handed over.
    """

    joins_single = False
    """Whether a last training batch of one example joins the batch before it: batch norm can't learn from one."""

    quantities: Sequence[Quantity] = ()
    """What `scores` tells, without `test_`: its meaning, unit, panel among the summary pictures, column of the closing table."""

    note = ""
    """What its reader should know of the examples; a run says it once."""

    def __init__(self, settings: StreamSettings, *, name: str, input_shape: tuple[int, ...], num_outputs: int):
        self.settings, self.name = settings, name
        self.input_shape, self.num_outputs = input_shape, num_outputs  # of one example; the head's, built once for all tasks
        self.batch_size, self.seed, self.device = settings.batch_size, settings.seed, torch.device(settings.device)

    # -- tasks ----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.settings.num_tasks

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(f"task {index} was asked for; the stream has tasks 0 to {len(self) - 1}")
        return self.task(index)

    @abstractmethod
    def task(self, index: int) -> Task:
        """The task number `index`, the same whatever else was asked for; its `train` and `test` are what `gather` takes."""

    # -- batches to learn from ------------------------------------------------------------------------------------

    @abstractmethod
    def num_batches(self, task: Task) -> int:
        """Batches in one epoch of `task`."""

    @property
    def chunk_length(self) -> int:
        """How many batches come at a time unless `chunks` is told; 1 where the next one depends on what is learned from this."""
        return 1

    @abstractmethod
    def chunks(
        self, task: Task, epoch: int, *, start: int = 0, length: int | None = None, actor: Actor | None = None
    ) -> Iterator[Batch]:
        """The training batches of one epoch from number `start` on, at most `length` (None: `chunk_length`) at a time.

        A chunk is K batches of one size: inputs [K, B, …], targets [K, B, …]. It is asked for when all before it were learned
        from. Chunks begin at multiples of `length` wherever the epoch is entered: of the one that `start` lies in, what is left
        of it comes. An environment looks at `actor.net`; others do without.
        """

    def epoch(self, task: Task, epoch: int, *, start: int = 0, actor: Actor | None = None) -> Iterator[Batch]:
        """The same batches one by one, inputs [B, …], targets [B, …]: views of chunks."""
        for chunk in self.chunks(task, epoch, start=start, actor=actor):
            yield from map(Batch, chunk.inputs.unbind(), chunk.targets.unbind())

    # -- examples to be judged by ---------------------------------------------------------------------------------

    @abstractmethod
    def gather(self, task: Task, indices: Tensor) -> Batch:
        """The examples `indices` [B] of the task's splits, as it shows them, never augmented: the same at each call."""

    def batches(self, task: Task, indices: Tensor, batch_size: int | None = None) -> Iterator[Batch]:
        """The examples `indices` in their order, as `task` shows them, never augmented."""
        for part in indices.split(batch_size or self.batch_size):
            yield self.gather(task, part)

    def in_batches(self, task: Task, indices: Tensor, batch_size: int | None = None) -> Batches:
        """The same as a sequence: to be gone through again and again, and made only where it is looked at."""
        return Batches(self, task, indices.split(batch_size or self.batch_size))

    def scores(self, task: Task, net: nn.Module) -> Mapping[str, float]:
        """What a net is judged by besides its loss and metrics on test examples, such as an environment's returns.

        By default nothing. Logged as `test_<name>`; `quantities` says what these are. It leaves no trace in the source's state.
        """
        return {}

    # -- its state ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that the next batch depends on, tensors and numbers in plain containers; empty where it is asked by index."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` of a source built in the same way gave."""

    def apart(self) -> Source:
        """This source for another learner, whose roll-outs leave the run's own as it is."""
        return copy.deepcopy(self) if self.state_dict() else self


@dataclass(frozen=True)
class Batches(Sequence[Batch]):
    """Examples of a task in batches, never augmented."""

    source: Source
    task: Task
    indices: Sequence[Tensor]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Batches(self.source, self.task, self.indices[index])
        return self.source.gather(self.task, self.indices[index])
