"""RMSprop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from taskshift.learners.part import Tensors
from taskshift.learners.rule import PerTensor


class RMSprop(PerTensor):
    """torch.optim.RMSprop: v ← α v + (1 − α) g², θ ← θ − lr g/(√v + ε); `centered` takes the mean's square off v."""

    def __init__(
        self,
        lr: float,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        maximize: bool = False,
    ):
        self._settings = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        self.centered, self.maximize = centered, maximize
        self.decays, self.moves = weight_decay != 0, momentum > 0
        slots = {"square_avg": True, "grad_avg": centered, "momentum_buffer": self.moves}
        self.slots = tuple(slot for slot, wanted in slots.items() if wanted)

    def settings(self) -> Mapping[str, float]:
        return self._settings

    def coefficients(self, settings: Tensors) -> Tensors:
        return {**settings, "minus_lr": -settings["lr"], "rest": 1 - settings["alpha"]}

    def update(self, p: Tensor, g: Tensor, own: Tensors, by: Tensors) -> tuple[Tensor, Tensors]:
        g = -g if self.maximize else g
        if self.decays:
            g = torch.addcmul(g, p, by["weight_decay"])
        kept = {"square_avg": (own["square_avg"] * by["alpha"]).add_((g * g).mul_(by["rest"]))}
        square = kept["square_avg"]
        if self.centered:
            mean = kept["grad_avg"] = torch.lerp(own["grad_avg"], g, by["rest"])
            square = square - mean * mean
        step = g / (square.sqrt() + by["eps"])
        if self.moves:
            step = kept["momentum_buffer"] = (own["momentum_buffer"] * by["momentum"]).add_(step)
        return torch.addcmul(p, step, by["minus_lr"]), kept

    @classmethod
    def of(cls, group: Mapping[str, Any]) -> RMSprop:
        """The rule of a torch.optim.RMSprop's parameter group."""
        names = ("lr", "alpha", "eps", "weight_decay", "momentum")
        return cls(**{name: float(group[name]) for name in names}, centered=group["centered"], maximize=group["maximize"])
