"""What a task's outputs are judged by. Twice differentiable, in whatever dtype the outputs have.

A copy (`copy.copy`) with `reduction = "sum"` sums over the examples instead.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Reduction = Literal["mean", "sum", "none"]


class CrossEntropy(nn.Module):
    """-log softmax(outputs)[target], over the active outputs alone.

    `active` lists the outputs that take part, by number; None: all. The others get no gradient, and a target must be active.
    """

    active: Tensor | None
    position: Tensor | None

    def __init__(self, active: Tensor | None = None, reduction: Reduction = "mean"):
        super().__init__()
        self.reduction = reduction
        self.register_buffer("active", active)
        self.register_buffer("position", None if active is None else _positions(active))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """outputs [B, K], targets [B] in 0 … K-1 → a scalar (`reduction="none"`: [B])."""
        if self.active is not None:
            outputs, targets = outputs.index_select(1, self.active), self.position[targets]
        return F.cross_entropy(outputs, targets, reduction=self.reduction)


class LabelValueMSE(nn.Module):
    """(outputs[label] - values[label])², averaged over examples: only the label's own output is trained."""

    values: Tensor

    def __init__(self, values: Tensor, reduction: Reduction = "mean"):
        super().__init__()
        self.reduction = reduction
        self.register_buffer("values", values)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """outputs [B, K], targets [B] (labels in 0 … K-1) → a scalar (`reduction="none"`: [B])."""
        chosen = outputs.gather(1, targets[:, None]).squeeze(1)
        wanted = self.values[targets].to(outputs.dtype)
        return F.mse_loss(chosen, wanted, reduction=self.reduction)


def _positions(active: Tensor) -> Tensor:
    """Where in `active` each output stands; -1 for those that are not in it, which cross_entropy refuses as a target."""
    positions = active.new_full((int(active.max()) + 1,), -1)
    positions[active] = torch.arange(len(active), device=active.device)
    return positions
