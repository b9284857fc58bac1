"""A net and everything that changes it: optimizer × regularisers × interventions × schedule."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Step:
    """What one call of `learn` leaves behind, on the device, detached: no host sync."""

    loss: Tensor  # scalar, the task's mean loss on the batch before the step, without regularisers
    outputs: Tensor  # [B, K]
