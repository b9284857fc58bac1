"""Penalties that pull the net back to where it began."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from taskshift.learners.part import Context, Memory, Start, Tensors
from taskshift.learners.regularizers import Weighted


class TowardInitial(Weighted):
    """`weight` times a distance of θ from θ₀, the parameters before the run's first step; biases and norm layers included."""

    def init(self, start: Start) -> Memory:
        return {"initial": {name: start.net[name].clone() for name in start.trained}}

    def penalty(self, parameters: Tensors, context: Context) -> Tensor:
        initial = context.memory["initial"]
        parts = [self.distance(parameter, initial[name], context.settings) for name, parameter in parameters.items()]
        return context.settings["weight"] * torch.stack(parts).sum()

    @abstractmethod
    def distance(self, parameter: Tensor, initial: Tensor, settings: Tensors) -> Tensor:
        """How far one parameter is from its initial value, a scalar."""


class L2Init(TowardInitial):
    """(weight / 2) ‖θ − θ₀‖²: L2 Init, or regenerative regularisation (Kumar et al. 2023).

    The paper writes λ‖θ − θ₀‖², its code λ/2: `weight` is the code's λ, half of it the paper's.
    """

    def distance(self, parameter: Tensor, initial: Tensor, settings: Tensors) -> Tensor:
        return (parameter - initial).square().sum() / 2


class L1Init(TowardInitial):
    """weight ‖θ − θ₀‖₁ (Kumar et al. 2023, appendix)."""

    def distance(self, parameter: Tensor, initial: Tensor, settings: Tensors) -> Tensor:
        return (parameter - initial).abs().sum()


class HuberInit(TowardInitial):
    """weight Σ huber(θ − θ₀): d²/2 where |d| ≤ delta, else delta (|d| − delta/2) (Kumar et al. 2023, appendix)."""

    def __init__(self, weight: float, delta: float = 1.0):
        super().__init__(weight)
        if not delta > 0:
            raise ValueError(f"delta is {delta}; the distance from which the penalty grows linearly is above 0")
        self.delta = delta

    def settings(self) -> Mapping[str, float]:
        return {**super().settings(), "delta": self.delta}

    def distance(self, parameter: Tensor, initial: Tensor, settings: Tensors) -> Tensor:
        delta, far = settings["delta"], (parameter - initial).abs()
        return torch.where(far <= delta, far.square() / 2, delta * (far - delta / 2)).sum()


class WassersteinInit(TowardInitial):
    """weight Σ_l Σᵢ (sort(θ_l)ᵢ − sort(θ₀_l)ᵢ)², l a tensor of parameters: their distributions, not their places.

    Lewandowski et al. 2023.
    """

    def distance(self, parameter: Tensor, initial: Tensor, settings: Tensors) -> Tensor:
        return (parameter.flatten().sort().values - initial.flatten().sort().values).square().sum()
