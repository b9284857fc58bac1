"""Products with matrices JᵀMJ, J the derivative of a map y(θ) of a net's parameters and M a matrix between its values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jvp

from loss_landscape.objective.functional_net import Parameters
from loss_landscape.operators.batch_sum import TENSORS_KEPT_AN_ACTIVATION, BatchMatrix
from loss_landscape.operators.hessian_products import flat, require_twice_differentiable, vjp
from loss_landscape.surface.surface import LossSurface

Middle = Callable[[Tensor], Tensor]
"""The product of M with what is like y."""


def retained_product(surface: LossSurface, leaves: Parameters, values: Tensor, middle: Middle) -> BatchMatrix:
    """By the graphs of y, the `values` at `leaves`, and of Jᵀu, which are kept: the derivative of ⟨Jᵀu, v⟩ in u is Jv."""
    held = TENSORS_KEPT_AN_ACTIVATION * surface.objective.activation_bytes
    if not values.requires_grad:  # this batch depends on none of the parameters that move
        return BatchMatrix(torch.zeros_like, held)
    dual = torch.zeros_like(values, requires_grad=True)
    with torch.enable_grad():
        transposed = torch.autograd.grad(
            values, list(leaves.values()), grad_outputs=dual, create_graph=True, allow_unused=True, materialize_grads=True
        )
    require_twice_differentiable(transposed)
    linearised = _Linearised(list(leaves.values()), values, dual, list(transposed), middle)
    return BatchMatrix(lambda vector: linearised.product(surface.layout.unflatten(vector)), held)


def streamed_product(
    surface: LossSurface, values: Callable[[Parameters], Tensor], middle_at: Callable[[Tensor], Middle]
) -> BatchMatrix:
    """By forward differentiation for Jv and a backward pass for Jᵀ: nothing is kept, and one graph lives at a time."""

    def pushed(vector: Tensor) -> Tensor:
        """M Jv."""
        point = surface.layout.unflatten(surface.origin)
        with torch.no_grad():
            found = jvp(values, (point,), (surface.layout.unflatten(vector),))
        return middle_at(found[0])(found[1])

    def product(vector: Tensor) -> Tensor:
        along = pushed(vector)
        leaves = surface.leaves()
        with torch.enable_grad():
            there = values(leaves)
        if not there.requires_grad:
            return torch.zeros_like(vector)
        return flat(torch.autograd.grad(there, list(leaves.values()), along, allow_unused=True, materialize_grads=True))

    return BatchMatrix(product, num_bytes=0)


@dataclass
class _Linearised:
    """A map y(θ) with the graphs of its two products, and the matrix M in the middle of JᵀMJ."""

    leaves: list[Tensor]
    values: Tensor  # y
    dual: Tensor  # u, like y
    transposed: list[Tensor]  # Jᵀu as a function of u; its derivative along v is Jv
    middle: Middle

    def product(self, vector: Parameters) -> Tensor:
        """JᵀMJ · vector, [P]."""
        live = [(part, along) for part, along in zip(self.transposed, vector.values(), strict=True) if part.requires_grad]
        parts, along = zip(*live, strict=True)
        (pushed,) = vjp(parts, [self.dual], along)
        return flat(vjp([self.values], self.leaves, [self.middle(pushed)]))
