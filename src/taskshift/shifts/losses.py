"""What a task's outputs are judged by. Twice differentiable, in whatever dtype the outputs have.

What differs between the tasks of a stream is a buffer of one shape, so that one recording of a step serves all of them. A copy
(`copy.copy`) with `reduction = "sum"` sums over the examples instead.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Reduction = Literal["mean", "sum", "none"]


class CrossEntropy(nn.Module):
    """-log softmax(outputs)[target], over the active outputs alone.

    `active` says of each output whether it takes part, [K] bool; None: all do. The others get no gradient, and a target must be
    active: the loss of one that is not is infinite.
    """

    active: Tensor | None

    def __init__(self, active: Tensor | None = None, reduction: Reduction = "mean"):
        super().__init__()
        self.reduction = reduction
        self.register_buffer("active", active)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """outputs [B, K], targets [B] in 0 … K-1 → a scalar (`reduction="none"`: [B])."""
        if self.active is not None:
            outputs = outputs.masked_fill(~self.active, -torch.inf)
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
