"""Where a run stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from taskshift.learners.learner import Step
from taskshift.shifts.task import Task

Phase = Literal["start", "train", "end"]


@dataclass(frozen=True)
class Progress:
    """The next thing to do: this phase of this task, and within `train` this batch of this epoch."""

    task: int = 0
    phase: Phase = "start"
    epoch: int = 0
    batch: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class EpochSums:
    """Running sums over one epoch's examples, on the device: reading them is the epoch's only host sync."""

    def __init__(self, sums: Mapping[str, Tensor] | None = None, num_examples: int = 0):
        self.sums: dict[str, Tensor] = dict(sums or {})
        self.num_examples = num_examples

    def add(self, task: Task, step: Step, targets: Tensor) -> None:
        """Add one batch: its mean loss weighted by its size, and each metric's sum over its examples."""
        count = len(targets)
        self._add("loss", step.loss.double() * count)
        for name, metric in task.metrics.items():
            self._add(name, metric(step.outputs, targets).sum(dtype=torch.float64))
        self.num_examples += count

    def _add(self, name: str, value: Tensor) -> None:
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def means(self) -> dict[str, float]:
        """Averages over examples, `loss` first, read from the device."""
        return {name: total.item() / self.num_examples for name, total in self.sums.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self.sums), "num_examples": self.num_examples}
