"""Products with matrices JᵀMJ, J the derivative of a net's outputs or of its examples' losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from loss_landscape.objective.functional_net import Parameters
from loss_landscape.operators.batch_sum import TENSORS_KEPT_AN_ACTIVATION, Prepared, Summand
from loss_landscape.operators.hessian_products import flat, pulled_back, require_twice_differentiable, retained
from loss_landscape.surface.surface import LossSurface


def gauss_newton_summands(surface: LossSurface) -> Iterator[Summand]:
    """For each batch J the outputs' derivative and M the loss's Hessian in them; for the regulariser its own Hessian."""
    for weight, batch in surface.objective.weighted_batches():
        prepared = partial(_gauss_newton, surface, batch)
        yield Summand(weight, prepared, prepared)
    if surface.objective.regularizer is not None:
        prepared = partial(retained, surface, surface.objective.penalty)
        yield Summand(1.0, prepared, prepared)


def fisher_summands(surface: LossSurface) -> Iterator[Summand]:
    """For each batch J the derivative of the examples' own losses and M the diagonal of their shares."""
    for weight, batch in surface.objective.weighted_batches():
        prepared = partial(_fisher, surface, batch)
        yield Summand(weight, prepared, prepared)


@dataclass
class _Linearised:
    """A map y(θ) with the graphs of its two products, and the matrix M in the middle of JᵀMJ."""

    leaves: list[Tensor]
    values: Tensor  # y
    dual: Tensor  # u, like y
    pulled: list[Tensor]  # Jᵀu as a function of u; its derivative along v is Jv
    middle: Callable[[Tensor], Tensor]  # M

    def product(self, vector: Parameters) -> Tensor:
        """JᵀMJ · vector, [P]."""
        live = [(pulled, part) for pulled, part in zip(self.pulled, vector.values(), strict=True) if pulled.requires_grad]
        pulled, parts = zip(*live, strict=True)
        (pushed,) = pulled_back(pulled, [self.dual], parts)
        return flat(pulled_back([self.values], self.leaves, [self.middle(pushed)]))


def _gauss_newton(surface: LossSurface, batch: Any) -> Prepared:
    leaves = surface.leaves()
    with torch.enable_grad():
        outputs = surface.objective.outputs(leaves, batch)
        _require_one_tensor(outputs)
        point = outputs.detach().requires_grad_()
        (slope,) = torch.autograd.grad(surface.objective.criterion(point, batch[1]), [point], create_graph=True)

    def middle(vector: Tensor) -> Tensor:
        return pulled_back([slope], [point], [vector])[0] if slope.requires_grad else torch.zeros_like(vector)

    return _prepared(surface, leaves, outputs, middle)


def _fisher(surface: LossSurface, batch: Any) -> Prepared:
    leaves = surface.leaves()
    with torch.enable_grad():
        outputs = surface.objective.outputs(leaves, batch)
        _require_one_tensor(outputs)
        losses, shares = surface.objective.criterion.example_losses(outputs, batch[1])
    if surface.objective.criterion.reduction != "sum":
        shares = shares / shares.sum()
    return _prepared(surface, leaves, losses, lambda vector: shares * vector)


def _prepared(surface: LossSurface, leaves: Parameters, values: Tensor, middle: Callable[[Tensor], Tensor]) -> Prepared:
    held = TENSORS_KEPT_AN_ACTIVATION * surface.objective.activation_bytes
    if not values.requires_grad:  # this batch depends on none of the parameters that move
        return Prepared(torch.zeros_like, held)
    dual = torch.zeros_like(values, requires_grad=True)
    with torch.enable_grad():
        pulled = torch.autograd.grad(
            values, list(leaves.values()), grad_outputs=dual, create_graph=True, allow_unused=True, materialize_grads=True
        )
    require_twice_differentiable(pulled)
    linearised = _Linearised(list(leaves.values()), values, dual, list(pulled), middle)
    return Prepared(lambda vector: linearised.product(surface.layout.unflatten(vector)), held)


def _require_one_tensor(outputs: Any) -> None:
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"the Gauss–Newton and Fisher matrices need a net that gives one tensor, got {type(outputs).__name__}; wrap the net "
            "to give only what the loss depends on, or use HessianOperator"
        )
