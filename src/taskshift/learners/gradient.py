"""The direction of a step: the loss's gradient at the parameters, or somewhere near them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from taskshift.learners.part import Context, Memory, Part, Tensors


class Pass(NamedTuple):
    """What one forward pass leaves behind, detached."""

    loss: Tensor  # scalar, without regularisers
    outputs: Tensor  # [B, K]
    buffers: Tensors  # as the pass left them
    features: Tensors  # outputs of the modules that some part reads


class Found(NamedTuple):
    """What a gradient part finds; `seen` is the pass at the parameters themselves, from before the step."""

    gradients: Tensors
    seen: Pass
    memory: Memory = {}
    numbers: Tensors = {}


@dataclass(frozen=True)
class Objective:
    """What a step lowers, at `point`: the task's loss on the batch plus the regularisers' penalties.

    `loss(parameters)` gives a differentiable scalar and the pass that made it, `penalty(parameters, features)` the
    regularisers' sum there, or None where there are none.
    """

    point: Tensors
    loss: Callable[[Tensors], tuple[Tensor, Pass]]
    penalty: Callable[[Tensors, Tensors], Tensor | None]

    def total(self, parameters: Tensors) -> tuple[Tensor, Pass]:
        """Loss and penalties at one place."""
        return self.total_at(parameters, parameters)

    def total_at(self, place: Tensors, parameters: Tensors) -> tuple[Tensor, Pass]:
        """The loss at `place` plus the penalties at `parameters`."""
        loss, seen = self.loss(place)
        penalty = self.penalty(parameters, seen.features)
        return (loss if penalty is None else loss + penalty), seen


class Gradient(Part, ABC):
    """Takes the place of ∇L in a step; optimizer, regularisers and interventions go with any."""

    @abstractmethod
    def gradient(self, objective: Objective, context: Context) -> Found:
        """The direction that the optimizer rule is given, by `slopes` of the objective, once or several times."""


class Plain(Gradient):
    """∇(L + penalties) at the parameters."""

    def gradient(self, objective: Objective, context: Context) -> Found:
        return Found(*slopes(objective.total, objective.point))


class SAM(Gradient):
    """∇L at θ + ρ g/‖g‖, g = ∇L(θ) (Foret et al. 2021), plus the penalties' gradient at θ: two passes a step.

    The loss, features and running statistics are those of the first pass, at θ.
    """

    def __init__(self, rho: float = 0.05):
        if not rho > 0:
            raise ValueError(f"rho is {rho}; the length of the ascent is above 0")
        self.rho = rho

    def settings(self) -> Mapping[str, float]:
        return {"rho": self.rho}

    def gradient(self, objective: Objective, context: Context) -> Found:
        uphill, seen = slopes(objective.loss, objective.point)
        away = self.ascent(objective.point, uphill, context.settings)

        def nearby(parameters: Tensors) -> tuple[Tensor, Pass]:
            return objective.total_at({name: p + away[name] for name, p in parameters.items()}, parameters)

        gradients, _ = slopes(nearby, objective.point)
        return Found(gradients, seen)

    def ascent(self, point: Tensors, uphill: Tensors, settings: Tensors) -> Tensors:
        """The displacement to where the gradient is taken; none where `uphill` is zero."""
        scale = settings["rho"] / norm(uphill).clamp_min(1e-12)
        return {name: g * scale for name, g in uphill.items()}


class ASAM(SAM):
    """SAM whose ascent follows the parameters' sizes: ρ T²g/‖Tg‖, T = |θ| + η for every parameter (Kwon et al. 2021)."""

    def __init__(self, rho: float = 0.5, eta: float = 0.01):
        super().__init__(rho)
        if not eta >= 0:
            raise ValueError(f"eta is {eta}; it is added to |θ| and is 0 or more")
        self.eta = eta

    def settings(self) -> Mapping[str, float]:
        return {"rho": self.rho, "eta": self.eta}

    def ascent(self, point: Tensors, uphill: Tensors, settings: Tensors) -> Tensors:
        sizes = {name: p.abs() + settings["eta"] for name, p in point.items()}
        scaled = {name: sizes[name] * g for name, g in uphill.items()}
        scale = settings["rho"] / norm(scaled).clamp_min(1e-12)
        return {name: sizes[name] * g * scale for name, g in scaled.items()}


def norm(tensors: Tensors) -> Tensor:
    """The Euclidean norm of all of them together."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors.values()]))


def slopes(function: Callable[[Tensors], tuple[Tensor, Any]], point: Tensors) -> tuple[dict[str, Tensor], Any]:
    """The gradient of a scalar of `point`, and what came along with it; a tensor that the scalar does not use gets zeros.

    By autograd, which costs half as much, unless some transform of torch.func is under way.
    """
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return torch.func.grad(function, has_aux=True)(point)
    with torch.enable_grad():
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in point.items()}
        value, seen = function(leaves)
        found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True)), seen
