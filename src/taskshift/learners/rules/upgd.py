"""Utility-based perturbed gradient descent: weights that are of use learn slowly, the others are perturbed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from taskshift.learners.draws import EveryStep, for_each_parameter
from taskshift.learners.part import Context, Memory, Slots, Start, Subject, Tensors
from taskshift.learners.rule import Rule


class UPGD(Rule):
    """θ ← (1 − ηλ) θ − η (g + σ ξ)(1 − ū), by weight (Elsayed and Mahmood 2024, UPGD-W).

    u ← β u + (1 − β)(−g θ), û = u/(1 − βᵗ), ū = sigmoid(û / max û), the largest over all weights of the net. With
    `protects=False` the gradient is not held back: θ ← (1 − ηλ) θ − η (g + σ ξ (1 − ū)). Where no weight has a utility above
    0 the largest in magnitude stands for the largest: the reference divides by a negative number there, which turns the order
    round. `adam_betas` puts m̂/(√v̂ + ε) in g's place (AdaUPGD).
    """

    def __init__(
        self,
        lr: float = 0.01,
        sigma: float = 0.001,
        beta_utility: float = 0.999,
        weight_decay: float = 0.0,
        protects: bool = True,
        adam_betas: tuple[float, float] | None = None,
        eps: float = 1e-8,
    ):
        for name, value in (("lr", lr), ("sigma", sigma), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise ValueError(f"{name} is {value}; it is 0 or more")
        for name, value in (("beta_utility", beta_utility), *(("adam_betas", beta) for beta in adam_betas or ())):
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}; a decay is at least 0 and below 1")
        self._settings = {"lr": lr, "sigma": sigma, "beta_utility": beta_utility, "weight_decay": weight_decay, "eps": eps}
        if adam_betas is not None:
            self._settings |= {"beta1": adam_betas[0], "beta2": adam_betas[1]}
        self.protects, self.is_adaptive = protects, adam_betas is not None
        self._draws: dict[str, EveryStep] = {}

    def settings(self) -> Mapping[str, float]:
        return self._settings

    def init(self, start: Start) -> Memory:
        self._draws = for_each_parameter(start)
        return {}

    def draws(self) -> Mapping[str, EveryStep]:
        return self._draws

    def first_slots(self, parameters: Tensors) -> Slots:
        slots = ("utility", "step") + (("exp_avg", "exp_avg_sq") if self.is_adaptive else ())
        return {slot: {name: torch.zeros_like(p) for name, p in parameters.items()} for slot in slots}

    def step(self, subject: Subject, context: Context) -> Subject:
        by = {key: value.to(next(iter(subject.net.values())).dtype) for key, value in context.settings.items()}
        slots = self._followed(subject, context.gradients, by)
        utilities = {name: _unbiased(slots, "utility", name, by["beta_utility"]) for name in subject.net}
        largest = _largest(utilities)
        net = {}
        for name, p in subject.net.items():
            idle = 1 - torch.sigmoid(utilities[name] / largest)
            noise, direction = by["sigma"] * context.draws[name], self._direction(name, context.gradients[name], slots, by)
            moved = (direction + noise) * idle if self.protects else direction + noise * idle
            net[name] = p * (1 - by["lr"] * by["weight_decay"]) - by["lr"] * moved
        return subject._replace(net=net, slots=slots)

    def _followed(self, subject: Subject, gradients: Tensors, by: Tensors) -> dict[str, dict[str, Tensor]]:
        """The slots after this step's gradients."""
        slots = {"step": {name: count + 1 for name, count in subject.slots["step"].items()}}
        slots["utility"] = {
            name: by["beta_utility"] * u - (1 - by["beta_utility"]) * gradients[name] * subject.net[name]
            for name, u in subject.slots["utility"].items()
        }
        if self.is_adaptive:
            for slot, beta, power in (("exp_avg", by["beta1"], 1), ("exp_avg_sq", by["beta2"], 2)):
                slots[slot] = {name: beta * m + (1 - beta) * gradients[name] ** power for name, m in subject.slots[slot].items()}
        return slots

    def _direction(self, name: str, gradient: Tensor, slots: Slots, by: Tensors) -> Tensor:
        if not self.is_adaptive:
            return gradient
        mean, square = _unbiased(slots, "exp_avg", name, by["beta1"]), _unbiased(slots, "exp_avg_sq", name, by["beta2"])
        return mean / (square.sqrt() + by["eps"])


def _unbiased(slots: Slots, slot: str, name: str, beta: Tensor) -> Tensor:
    """The average without what it still has of its beginning at 0."""
    return slots[slot][name] / (1 - beta ** slots["step"][name])


def _largest(utilities: Tensors) -> Tensor:
    """The largest utility of all weights where it is above 0, else the largest magnitude; never 0."""
    flat = torch.stack([u.max() for u in utilities.values()]).max()
    magnitude = torch.stack([u.abs().max() for u in utilities.values()]).max()
    return torch.where(flat > 0, flat, magnitude).clamp_min(torch.finfo(flat.dtype).tiny)
