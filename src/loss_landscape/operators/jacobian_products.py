"""Products with matrices JᵀMJ, J the derivative of a map y(θ) of a net's parameters and M a matrix between its values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import jvp

from loss_landscape.nested import few_of
from loss_landscape.objective.functional_net import Parameters, undisturbed
from loss_landscape.operators.batch_sum import TENSORS_KEPT_AN_ACTIVATION, BatchMatrix
from loss_landscape.operators.derivative_check import ROUGH, ROUNDING_INSIDE, WrongDerivativeError, require_symmetry
from loss_landscape.operators.finite_differences import in_exact_dtype
from loss_landscape.operators.hessian_products import flat, require_twice_differentiable, vjp
from loss_landscape.surface.slopes import STEPS, random_vectors
from loss_landscape.surface.surface import LossSurface

JacobianMethod = Literal["retained", "streamed", "finite_differences"]
Values = Callable[[Parameters], Tensor]
"""The map y."""
Middle = Callable[[Tensor], Tensor]
"""The product of M with what is like y."""
MapOfBatch = Callable[[LossSurface, Any], tuple[Values, Callable[[Tensor], Middle]]]
"""A surface and a batch → y, and y's value → M."""


def jacobian_product(surface: LossSurface, batch: Any, map_of: MapOfBatch, method: JacobianMethod) -> BatchMatrix:
    """A batch's JᵀMJ by this method."""
    values, middle_at = map_of(surface, batch)
    if method != "retained":
        return streamed_product(
            surface, values, middle_at, _by_differences(surface, values) if method == "finite_differences" else _along
        )
    leaves = surface.leaves()
    with torch.enable_grad():
        there = values(leaves)
    return retained_product(surface, leaves, there, middle_at(there))


def first_that_works(
    surface: LossSurface, map_of: MapOfBatch, candidates: Sequence[JacobianMethod]
) -> tuple[JacobianMethod, LossSurface, str]:
    """The first method whose derivatives exist, the surface to use it on, and why it is not an earlier one.

    Tried on two examples of the first batch, where that can be cut. ValueError where none works.
    """
    reasons: list[str] = []
    _, batch = next(surface.objective.weighted_batches())
    for method in candidates:
        exact = in_exact_dtype(surface) if method == "finite_differences" else surface
        if exact is not surface:
            _, batch = next(exact.objective.weighted_batches())
        try:
            with undisturbed(surface.device):
                matrix = jacobian_product(exact, few_of(batch, 2), map_of, method)
                pair = random_vectors(exact.origin, 2)
                require_symmetry(pair, torch.stack([matrix.product(vector.contiguous()) for vector in pair.T], dim=1))
            return method, exact, _note(reasons, surface)
        except torch.OutOfMemoryError:
            return method, exact, _note(reasons, surface)  # it is mended where the whole is computed
        except RuntimeError as error:
            reasons.append(f"not {method}: {str(error).strip().partition(chr(10))[0]}")
    advice = ["give method='auto'"] if len(candidates) == 1 else []
    raise ValueError("; ".join([*reasons, *advice]))


def _note(reasons: Sequence[str], surface: LossSurface) -> str:
    return "; ".join(filter(None, [*reasons, surface.derivative_note, surface.objective.net.rules.draw_note]))


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


Along = Callable[[LossSurface, Values, Tensor], tuple[Tensor, Tensor]]
"""y at a surface's origin, and Jv for a vector v [P]."""


def streamed_product(
    surface: LossSurface, values: Values, middle_at: Callable[[Tensor], Middle], along: Along | None = None
) -> BatchMatrix:
    """By forward differentiation for Jv, or as `along` has it, and a backward pass for Jᵀ: one graph at a time, none kept."""

    def product(vector: Tensor) -> Tensor:
        here, change = (along or _along)(surface, values, vector)
        image = middle_at(here)(change)
        leaves = surface.leaves()
        with torch.enable_grad():
            there = values(leaves)
        if not there.requires_grad:
            return torch.zeros_like(vector)
        return flat(torch.autograd.grad(there, list(leaves.values()), image, allow_unused=True, materialize_grads=True))

    return BatchMatrix(product, num_bytes=0)


def _along(surface: LossSurface, values: Values, vector: Tensor) -> tuple[Tensor, Tensor]:
    point = surface.layout.unflatten(surface.origin)
    with torch.no_grad():
        found = jvp(values, (point,), (surface.layout.unflatten(vector),))
    return found[0], found[1]


def _by_differences(surface: LossSurface, values: Values) -> Along:
    """Jv by a central difference of y, with a step that does for a random vector."""
    step = _steady_step(surface, values)

    def along(surface: LossSurface, values: Values, vector: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            here = values(surface.layout.unflatten(surface.origin))
            return here, _difference(surface, values, vector, step) if bool(vector.any()) else torch.zeros_like(here)

    return along


@torch.no_grad()
def _steady_step(surface: LossSurface, values: Values) -> float:
    """The step, beside 1 + ‖θ‖, at which differences of y are steady: a larger one where y rounds its numbers."""
    vector, steps = random_vectors(surface.origin, 1)[:, 0], [STEPS[own] for own in (surface.dtype, *ROUNDING_INSIDE)]
    moves = False
    for step in steps:
        found, again = (_difference(surface, values, vector, times * step) for times in (1, 3))
        if bool(found.any()) and bool((found - again).norm() <= ROUGH * found.norm()):
            return step
        moves = moves or bool(found.any()) or bool(again.any())
    if moves:
        raise WrongDerivativeError("differences of the outputs change with the step: the net has a kink, or rounds its numbers")
    return steps[0]


def _difference(surface: LossSurface, values: Values, vector: Tensor, step: float) -> Tensor:
    """The central difference of y along a vector [P]."""
    reach = (step * (1 + surface.origin.double().norm()) / vector.double().norm()).to(vector)
    return _change(surface, values, reach * vector) / (2 * reach)


def _change(surface: LossSurface, values: Values, step: Tensor) -> Tensor:
    """y at the origin + step, less y at the origin − step."""
    there, back = (values(surface.layout.unflatten(surface.origin + sign * step)) for sign in (1, -1))
    return there - back


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
