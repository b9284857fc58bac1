"""What a learner adds to the task's loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from taskshift.learners.part import Part


class Regularizer(Part, ABC):
    """A term added to the task's loss before its gradient is taken. The loss that is recorded stays without it."""

    def attach(self, net: nn.Module) -> None:
        """See the net once, as it was initialised, before the first step and before any `load_state_dict`."""

    @abstractmethod
    def penalty(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """A differentiable scalar of the parameters that are trained, by name."""


class L2(Regularizer):
    """(weight / 2) ‖θ‖² over all parameters, biases and norm layers included.

    With the half, a step of plain SGD equals one with `weight_decay=weight`. It differs under Adam, where the
    penalty's gradient is rescaled together with the loss's (AdamW's decay is not).
    """

    def __init__(self, weight: float):
        if not weight >= 0:
            raise ValueError(f"weight is {weight}; an L2 penalty's weight is 0 or more")
        self.weight = weight

    def penalty(self, parameters: Mapping[str, Tensor]) -> Tensor:
        flat = [parameter.flatten() for parameter in parameters.values()]
        return self.weight / 2 * torch.stack([entries.dot(entries) for entries in flat]).sum()
