"""Products with the Hessian from gradients alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from loss_landscape.objective.functional_net import Parameters
from loss_landscape.objective.objective import gradients
from loss_landscape.operators.batch_sum import BatchMatrix, WeightedTerm
from loss_landscape.surface.surface import LossSurface


def difference_terms(surface: LossSurface, step: float) -> Iterator[WeightedTerm]:
    """Each term's central difference of the gradient, (g(θ + hv) − g(θ − hv)) / 2h with h = `step` · (1 + ‖θ‖) / ‖v‖."""
    reach = step * (1 + surface.origin.double().norm())
    for weight, loss in surface.objective.terms():

        def prepared(loss: Callable[[Parameters], Tensor] = loss) -> BatchMatrix:
            return BatchMatrix(lambda vector: _difference(surface, loss, vector, reach), num_bytes=0)

        yield WeightedTerm(weight, prepared, prepared)


def in_exact_dtype(surface: LossSurface) -> LossSurface:
    """The surface in float64 where its gradient exists there, else as it is: rounding is what limits a difference."""
    if surface.dtype == torch.float64:
        return surface
    try:
        exact = surface.in_dtype(torch.float64)
        exact.gradient()
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError):  # no such kernel, or none on this device
        return surface
    return exact


def _difference(surface: LossSurface, loss: Callable[[Parameters], Tensor], vector: Tensor, reach: Tensor) -> Tensor:
    length = vector.double().norm()
    if length == 0:
        return torch.zeros_like(vector)
    step = (reach / length).to(vector.dtype)
    there, back = (gradient(surface, loss, surface.origin + sign * step * vector) for sign in (1, -1))
    return (there - back) / (2 * step)


def gradient(surface: LossSurface, loss: Callable[[Parameters], Tensor], point: Tensor) -> Tensor:
    """The gradient [P] of one term of the surface at `point` [P]."""
    leaves = {name: t.requires_grad_() for name, t in surface.layout.unflatten(point.detach().clone()).items()}
    with torch.enable_grad():
        value = loss(leaves)
    if not value.requires_grad:  # this term depends on none of the parameters that move
        return torch.zeros_like(point)
    return surface.layout.flatten(gradients(value, leaves.values()))
