"""One task of a stream, and what makes tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor, nn

from taskshift.data.labelled_data import LabelledData, no_examples


class Batch(NamedTuple):
    """Some examples as a task shows them; `(inputs, targets)` is what `loss_landscape` wants of a batch."""

    inputs: Tensor  # [B, …]
    targets: Tensor  # [B], or what else the task's loss takes


View = Callable[[Tensor, Tensor, Tensor], Batch]
"""(inputs [B, …], targets [B], indices [B] of these examples in the data) → the batch as this task shows it."""

Metric = Callable[[Tensor, Tensor], Tensor]
"""(outputs [B, K], targets [B]) → one value an example, [B]."""


@dataclass(frozen=True, eq=False)
class Task:
    """One stretch of the stream, fixed for its whole life."""

    index: int
    train: Tensor  # [n], which examples of the data, by index
    test: Tensor  # [m]
    view: View
    loss: nn.Module  # (outputs, targets) → mean over examples; has `reduction`, which a copy may set to "sum" or "none"
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    validation: Tensor = field(default_factory=no_examples)  # [v], to choose by: neither trained nor tested on


class TaskShift(ABC):
    """A pure function of (seed, index): the same task, whatever else ran before, on whatever device.

    Draw from `taskshift.randomness.generator(self.seed, "<mode>", index)` on the CPU and move the tensors to the data's device.
    """

    seed: int

    @abstractmethod
    def task(self, data: LabelledData, index: int) -> Task:
        """The task number `index`, counted from 0."""

    def num_outputs(self, data: LabelledData) -> int:
        """How many outputs the net's head has, for the whole stream."""
        return data.num_classes

    def num_tasks(self, data: LabelledData) -> int | None:
        """How many tasks there are, or None where the stream does not end."""
        return None
