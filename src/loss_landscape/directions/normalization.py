"""Scaling directions to a net's parameters, and making them orthogonal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from loss_landscape.blockwise import blocks, norm, norm_of, product_of, sum_of_squares
from loss_landscape.directions.effective_weights import EffectiveWeight, effective_weights
from loss_landscape.objective.layout import ParameterLayout
from loss_landscape.surface.surface import LossSurface

Normalization = Literal["filter", "layer", "weight", "model", "none"]


def normalized(surface: LossSurface, direction: Tensor, normalization: Normalization) -> Tensor:
    """`direction` [P] scaled to the net's parameters; zeros stay zeros, and what they leave out counts for no norm.

    By "filter" and "layer", a weight that a layer makes of its parameters, by a mask or a parametrisation, moves by its own norm:
    these parameters are scaled together.
    """
    if normalization not in get_args(Normalization):
        raise ValueError(f"normalization must be one of {', '.join(get_args(Normalization))}, got {normalization!r}")
    if normalization == "none":
        return direction
    if normalization == "weight":
        return direction * surface.origin.abs()
    if normalization == "model":
        return direction * _ratio(torch.where(direction != 0, surface.origin, 0).norm(), direction.norm())
    layout, made = surface.layout, torch.empty_like(direction)
    vectors = (layout.unflatten(vector).values() for vector in (direction, surface.origin, made))
    for part, own, scaled, dim, in_norm in zip(*vectors, layout.unit_dims, layout.in_norm_layer, strict=True):
        if normalization == "layer":
            ratio = _ratio(own.norm(), part.norm())
        else:
            ratio = _ratio(_unit_norms(own, dim, in_norm), _unit_norms(part, dim, in_norm))
        torch.mul(part, ratio, out=scaled)
    direction = made
    for weight in effective_weights(surface):
        direction = _as_far_as_the_weight(surface, direction, weight, by_unit=normalization == "filter")
    return direction


def _as_far_as_the_weight(surface: LossSurface, direction: Tensor, weight: EffectiveWeight, *, by_unit: bool) -> Tensor:
    """The direction with the parameters of a weight scaled so that each unit's weights, or all, move by their norm."""
    own, moved = weight.moved(direction)
    parts = surface.layout.unflatten(direction.clone())
    dim = weight.unit_dim
    whole = _ratio(own.norm(), moved.norm())
    units = _ratio(_unit_norms(own, dim, False), _unit_norms(moved, dim, False)) if by_unit and own.dim() > 1 else whole
    for name in weight.made_of:
        part = parts[name]
        fits = units.dim() > 0 and part.dim() == own.dim() and part.shape[dim] == own.shape[dim]
        part.mul_((units if fits else whole).to(part))
    return surface.layout.flatten(parts)


def orthogonalized(vectors: Iterable[Tensor]) -> list[Tensor]:
    """The vectors with each one's part along the earlier ones removed, and its norm restored."""
    done: list[Tensor] = []
    for vector in vectors:
        taken, size = list[tuple[float, Tensor]](), len(vector)
        rest = partial(_less, vector, taken)
        for _ in range(2):
            for other in done:
                along = product_of(size, rest, partial(_less, other, ()))
                taken.append((along / sum_of_squares(other), other))
        before, left = norm(vector), norm_of(size, rest)
        if left <= 1e-6 * before:  # NaN passes: a diverged net has a plane of NaN
            raise ValueError(f"direction {len(done) + 1} lies in the span of the others (or is 0), so there is no such axis")
        axis = torch.empty_like(vector)
        for block in blocks(size):
            axis[block] = rest(block).mul_(before / left)
        done.append(axis)
        del vector, rest  # the next one is made meanwhile
    return done


def _less(vector: Tensor, taken: Sequence[tuple[float, Tensor]], block: slice) -> Tensor:
    """A block of a vector in float64, less so many times others."""
    left = vector[block].to(torch.float64, copy=True)
    for times, other in taken:
        left.sub_(other[block].to(torch.float64, copy=True).mul_(times))
    return left


def filter_norm_error(surface: LossSurface, vectors: Sequence[Tensor]) -> float:
    """How far, relatively, the norm of any moving filter is from the net's after the axes were made orthogonal."""
    worst = 0.0
    for vector in vectors:
        target = normalized(surface, vector, "filter")
        for block in blocks(len(vector)):
            moved = target[block] != 0
            if bool(moved.any()):
                worst = max(worst, float((vector[block][moved] / target[block][moved] - 1).abs().max()))
    return worst


def biases_and_norm_layers(layout: ParameterLayout) -> list[str]:
    """The parameters that a direction may be told to leave where they are."""
    return [n for n, shape, norm in zip(layout.names, layout.shapes, layout.in_norm_layer, strict=True) if len(shape) < 2 or norm]


def hold(surface: LossSurface, direction: Tensor, excluded: Sequence[str]) -> None:
    """Set a `direction` [P] to 0 in the parameters called `excluded`, in place."""
    layout = surface.layout
    if len(excluded) == len(layout.names):
        raise ValueError("every parameter is a bias or in a norm layer, so nothing can move; set exclude_bn_and_bias=False")
    parts = layout.unflatten(direction)
    for name in excluded:
        parts[name].mul_(0)


def _unit_norms(tensor: Tensor, unit_dim: int, in_norm_layer: bool) -> Tensor:
    """The norm of each output unit's weights, shaped to multiply `tensor`; a bias or a norm layer's tensor is one unit."""
    if tensor.dim() < 2 or in_norm_layer:
        return tensor.norm()
    others = tuple(d for d in range(tensor.dim()) if d != unit_dim)
    return torch.linalg.vector_norm(tensor, dim=others, keepdim=True)


def _ratio(wanted: Tensor, given: Tensor) -> Tensor:
    return torch.where(given == 0, torch.zeros_like(given), wanted / given)
