"""Adam and AdamW, counting steps by the element."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from taskshift.learners.part import Slots, Tensors
from taskshift.learners.rule import PerTensor


class Adam(PerTensor):
    """torch.optim.Adam, and AdamW with `decoupled`: m̂/(√v̂ + ε) with bias corrections 1 − βᵗ.

    t is counted for every element, so that one that is drawn anew, its slots set to 0, begins its corrections anew.
    """

    def __init__(
        self,
        lr: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        maximize: bool = False,
        decoupled: bool = False,
    ):
        self._settings = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay}
        self.amsgrad, self.maximize, self.decoupled = amsgrad, maximize, decoupled
        self.decays = weight_decay != 0
        self.slots = ("exp_avg", "exp_avg_sq", "step") + (("max_exp_avg_sq",) if amsgrad else ())

    def settings(self) -> Mapping[str, float]:
        return self._settings

    def settings_of(self, group: Mapping[str, Any]) -> Mapping[str, float]:
        beta1, beta2 = map(float, group["betas"])
        return {"beta1": beta1, "beta2": beta2, **{name: float(group[name]) for name in ("lr", "eps", "weight_decay")}}

    def group_of(self, group: Mapping[str, Any], settings: Mapping[str, float]) -> dict[str, Any]:
        others = {name: value for name, value in settings.items() if name not in ("beta1", "beta2")}
        return {**group, **others, "betas": (settings["beta1"], settings["beta2"])}

    def coefficients(self, settings: Tensors) -> Tensors:
        beta1, beta2, decay = settings["beta1"], settings["beta2"], settings["weight_decay"]
        logs = {"log_beta1": beta1.log(), "log_beta2": beta2.log()}
        wanted = {"lr": settings["lr"], "eps": settings["eps"], "beta2": beta2, "rest1": 1 - beta1, "rest2": 1 - beta2} | logs
        return wanted | ({"keeps": 1 - settings["lr"] * decay, "weight_decay": decay} if self.decays else {})

    def update(self, p: Tensor, g: Tensor, own: Tensors, by: Tensors) -> tuple[Tensor, Tensors]:
        g = -g if self.maximize else g
        if self.decays and self.decoupled:
            p = p * by["keeps"]
        elif self.decays:
            g = torch.addcmul(g, p, by["weight_decay"])
        t = own["step"] + 1
        mean = torch.lerp(own["exp_avg"], g, by["rest1"])
        square = (own["exp_avg_sq"] * by["beta2"]).add_((g * g).mul_(by["rest2"]))
        kept = {"exp_avg": mean, "exp_avg_sq": square, "step": t}
        if self.amsgrad:
            square = kept["max_exp_avg_sq"] = torch.maximum(own["max_exp_avg_sq"], square)
        # 1 − βᵗ without the cancellation that it has for small t in float32
        first, second = ((t * by[log]).expm1_().neg_() for log in ("log_beta1", "log_beta2"))
        length = (square / second).sqrt_().add_(by["eps"]).mul_(first)
        return p - (mean * by["lr"]).div_(length), kept

    @classmethod
    def of(cls, group: Mapping[str, Any]) -> Adam:
        """The rule of the parameter group of a torch.optim.Adam or AdamW."""
        beta1, beta2 = map(float, group["betas"])
        numbers = {name: float(group[name]) for name in ("lr", "eps", "weight_decay")}
        decoupled = group["decoupled_weight_decay"]
        return cls(beta1=beta1, beta2=beta2, amsgrad=group["amsgrad"], maximize=group["maximize"], decoupled=decoupled, **numbers)

    def torch_state(self, slots: Slots) -> Mapping[str, Mapping[str, Tensor]] | None:
        """None where elements of one parameter have made different numbers of steps, or none yet."""
        if any(bool((count != count.max()).any()) or not bool(count.max() > 0) for count in slots["step"].values()):
            return None
        names = [slot for slot in self.slots if slot != "step"]
        return {
            name: {"step": count.max(), **{slot: slots[slot][name] for slot in names}} for name, count in slots["step"].items()
        }
