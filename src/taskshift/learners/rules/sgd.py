"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from taskshift.learners.part import Slots, Tensors
from taskshift.learners.rule import PerTensor


class SGD(PerTensor):
    """torch.optim.SGD: b ← μ b + (1 − dampening) g, θ ← θ − lr b; with Nesterov's, θ ← θ − lr (g + μ b).

    `weight_decay` · θ is added to g first. As in torch, the first g that b sees is not dampened, also after a reset.
    """

    def __init__(
        self,
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        maximize: bool = False,
    ):
        self._settings = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        self.nesterov, self.maximize = nesterov, maximize
        self.decays, self.dampens = weight_decay != 0, momentum != 0 and dampening != 0
        self.slots = ("momentum_buffer",) if momentum else ()
        self.slots += ("begun",) if self.dampens else ()  # 1 where the buffer has seen a gradient

    def settings(self) -> Mapping[str, float]:
        return self._settings

    def coefficients(self, settings: Tensors) -> Tensors:
        wanted = {"minus_lr": -settings["lr"]}
        wanted |= {"momentum": settings["momentum"]} if self.slots else {}
        wanted |= {"share": 1 - settings["dampening"]} if self.dampens else {}
        return wanted | ({"weight_decay": settings["weight_decay"]} if self.decays else {})

    def update(self, p: Tensor, g: Tensor, own: Tensors, by: Tensors) -> tuple[Tensor, Tensors]:
        g = -g if self.maximize else g
        if self.decays:
            g = torch.addcmul(g, p, by["weight_decay"])
        if not self.slots:
            return torch.addcmul(p, g, by["minus_lr"]), {}
        buffer = own["momentum_buffer"] * by["momentum"]
        kept = {}
        if self.dampens:
            buffer.add_(torch.where(own["begun"] > 0, by["share"] * g, g))
            kept = {"begun": torch.ones_like(own["begun"])}
        else:
            buffer.add_(g)
        step = torch.addcmul(g, buffer, by["momentum"]) if self.nesterov else buffer
        return torch.addcmul(p, step, by["minus_lr"]), {"momentum_buffer": buffer, **kept}

    @classmethod
    def of(cls, group: Mapping[str, Any]) -> SGD:
        """The rule of a torch.optim.SGD's parameter group."""
        names = ("lr", "momentum", "dampening", "weight_decay")
        return cls(**{name: float(group[name]) for name in names}, nesterov=group["nesterov"], maximize=group["maximize"])

    def torch_state(self, slots: Slots) -> Mapping[str, Mapping[str, Tensor]]:
        buffers = slots.get("momentum_buffer", {})
        return {name: {"momentum_buffer": buffer} for name, buffer in buffers.items()}
