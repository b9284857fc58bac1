"""Images or vectors with integer labels, normalised once and kept as one tensor on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""(inputs [B, C, H, W], generator on their device) → augmented inputs of the same shape."""


def no_examples() -> Tensor:
    """The indices of none."""
    return torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True, eq=False)
class LabelledData:
    """A data set: `inputs[i]` has the label `targets[i]`; `train`, `test` and `validation` are disjoint sets of indices.

    A task refers to examples by their index here, so that no task copies the data.
    """

    name: str
    inputs: Tensor  # [N, C, H, W] (or [N, D]), floating, normalised
    targets: Tensor  # [N], int64, in 0 … num_classes - 1
    train: Tensor  # [n], int64 indices into inputs
    test: Tensor  # [m], int64
    num_classes: int
    black: Tensor  # [C], what an unlit pixel is after normalisation
    augment: Augmentation | None = None  # training batches only
    validation: Tensor = field(default_factory=no_examples)  # [v], int64; see taskshift.data.validation
    note: str = ""  # what was done to the images that their reader should know; a run says it once

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example, without the batch."""
        return tuple(self.inputs.shape[1:])

    @property
    def device(self) -> torch.device:
        return self.inputs.device

    def to(self, device: torch.device | str) -> LabelledData:
        """The same data on `device`."""
        moved = {name: getattr(self, name).to(device) for name in ("inputs", "targets", "train", "test", "validation", "black")}
        return replace(self, **moved)
