"""Where a run stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from taskshift.learners.learner import Step, Steps
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


PIECES = 1024
"""Pieces after which an epoch's values are put into one tensor: a tensor a batch is large for a million of them."""


class EpochSums:
    """One epoch's loss and metrics, batch by batch, on the device: reading their means is the epoch's only host sync.

    The values stay apart until the end, so that the means have the same bits wherever a checkpoint fell.
    """

    def __init__(
        self,
        counts: Sequence[Sequence[int]] = (),
        values: Mapping[str, Tensor] | None = None,
        numbers: Mapping[str, Tensor] | None = None,
    ):
        self.counts = [list(count) for count in counts]  # [examples a batch, so many batches in a row]
        self.values = {name: [kept] for name, kept in (values or {}).items()}  # name → pieces [b] that make a value a batch
        self.numbers = {name: [kept] for name, kept in (numbers or {}).items()}  # what parts of the learner tell, likewise

    def add(self, task: Task, step: Step, targets: Tensor) -> None:
        """Add one batch: its mean loss, and the mean of each metric over its examples."""
        steps = Steps.of(step)
        self.add_values(len(targets), of_steps(task, steps, targets))
        self.note(steps.numbers)

    def add_values(self, batch_size: int, values: Mapping[str, Tensor]) -> None:
        """Add batches of one size by their means, see `of_steps`."""
        if self.counts and self.counts[-1][0] == batch_size:
            self.counts[-1][1] += len(values["loss"])
        else:
            self.counts.append([batch_size, len(values["loss"])])
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)
        if len(self.values["loss"]) >= PIECES:
            self.values = {name: [torch.cat(pieces)] for name, pieces in self.values.items()}
            self.numbers = {name: [torch.cat(pieces)] for name, pieces in self.numbers.items()}

    def note(self, numbers: Mapping[str, Tensor]) -> None:
        """Add what parts of the learner tell, at steps, a switch or an epoch's end."""
        for name, value in numbers.items():
            self.numbers.setdefault(name, []).append(value.reshape(-1))

    def means(self) -> dict[str, float]:
        """Averages over examples, `loss` first, read from the device."""
        if not self.counts:
            return {}
        shares = torch.cat([torch.full((number,), size, dtype=torch.float64) for size, number in self.counts])
        kept = {name: torch.cat(pieces).double().cpu() for name, pieces in self.values.items()}
        return {name: (values @ shares / shares.sum()).item() for name, values in kept.items()}

    def totals(self) -> dict[str, float]:
        """What parts of the learner told, summed, read from the device."""
        return {name: torch.cat(pieces).double().sum().item() for name, pieces in self.numbers.items()}

    def state_dict(self) -> dict[str, Any]:
        values, numbers = ({name: torch.cat(pieces) for name, pieces in kept.items()} for kept in (self.values, self.numbers))
        return {"counts": [list(count) for count in self.counts], "values": values, "numbers": numbers}


def of_steps(task: Task, steps: Steps, targets: Tensor) -> dict[str, Tensor]:
    """Mean losses, and the mean of each metric over a batch's examples, [K] each, on the device; targets [K · B, …]."""
    means = {"loss": steps.losses}
    for name, metric in task.metrics.items():
        values = metric(steps.outputs, targets)
        means[name] = values.reshape(len(steps.losses), -1).mean(dim=1)
    return means
