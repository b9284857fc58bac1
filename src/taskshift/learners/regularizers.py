"""What a learner adds to the task's loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from taskshift.learners.part import Context, Memory, Part, Tensors


class Regularizer(Part, ABC):
    """A term added to the task's loss before its gradient is taken. The loss that is recorded stays without it."""

    @abstractmethod
    def penalty(self, parameters: Tensors, context: Context) -> Tensor:
        """A differentiable scalar of the trained parameters by name, and of `context.features` where it reads some."""

    def advance(self, parameters: Tensors, context: Context) -> Memory:
        """Its memory for this step, without gradients, before any `penalty`, which may be asked for several times a step."""
        return context.memory


class Weighted(Regularizer):
    """`weight` times something; the weight is a setting."""

    def __init__(self, weight: float):
        if not weight >= 0:
            raise ValueError(f"weight is {weight}; the weight of a penalty is 0 or more")
        self.weight = weight

    def settings(self) -> Mapping[str, float]:
        return {"weight": self.weight}


class L2(Weighted):
    """(weight / 2) ‖θ‖² over all parameters, biases and norm layers included.

    With the half, a step of plain SGD equals one with `weight_decay=weight`. It differs under Adam, where the
    penalty's gradient is rescaled together with the loss's (AdamW's decay is not).
    """

    def penalty(self, parameters: Tensors, context: Context) -> Tensor:
        flat = [parameter.flatten() for parameter in parameters.values()]
        return context.settings["weight"] / 2 * torch.stack([entries.dot(entries) for entries in flat]).sum()
