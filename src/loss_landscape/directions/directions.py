"""Axes for planes, lines and volumes: random, of the gradient, the Hessian, an optimizer, other nets."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from loss_landscape.blockwise import blocks
from loss_landscape.directions.custom import with_info
from loss_landscape.directions.normalization import (
    Normalization,
    biases_and_norm_layers,
    filter_norm_error,
    hold,
    normalized,
    orthogonalized,
)
from loss_landscape.directions.points import PointLike, not_moved, parameters_at
from loss_landscape.randomness import GeneratorLike, generator_from
from loss_landscape.results.directions import Directions
from loss_landscape.results.eigenpairs import Eigenpairs
from loss_landscape.results.info import DirectionInfo, PlanePoint
from loss_landscape.surface.optimizer_state import adam_moments
from loss_landscape.surface.surface import LossSurface, require_surface


def random_directions(
    surface: LossSurface,
    count: int = 2,
    *,
    normalization: Normalization = "filter",
    exclude_bn_and_bias: bool = True,
    generator: GeneratorLike = None,
) -> Directions:
    """Gaussian directions, scaled like the net's own parameters, orthogonal to each other.

    `count` is how many of `surface`, 1 to 3. `normalization="filter"` gives each output unit's weights the norm of the net's (Li
    et al. 2018), "layer" each tensor, "model" the whole, "weight" multiplies every entry by the parameter's size, "none" leaves
    the draw as it is. They are normalised first, then made orthogonal, then brought back to their norm: the other order leaves
    axes that are neither. With `exclude_bn_and_bias` biases and norm layers stay where they are, else each counts as one unit.
    The draws depend on `generator` (None: the same ones every time) and the parameters' shapes alone. Raises ValueError for any
    other option.

    >>> random_directions(surface, 1, normalization="model", generator=3)
    Directions(1 × [2], random, norms 1.41, cosine 0)
    """
    require_surface(surface)
    check_count(count)
    generator = generator_from(generator)
    drawn = (_normal(surface, generator) for _ in range(count))
    return _as_axes(surface, drawn, normalization, exclude_bn_and_bias, DirectionInfo("random"))


def hessian_directions(
    surface: LossSurface,
    pairs: Eigenpairs,
    *,
    choice: Literal["top2", "extremes"] = "top2",
    normalization: Normalization = "none",
    exclude_bn_and_bias: bool = False,
) -> Directions:
    """Two Hessian eigenvectors of length 1, from the eigenpairs `pairs` of `surface`.

    With `choice="top2"` those of the two largest eigenvalues, with "extremes" of the largest and of the smallest. The sign of an
    eigenvector means nothing: its largest entry is made positive. `normalization` and `exclude_bn_and_bias` are as in
    `random_directions`; normalised otherwise than by "model", or with biases and norm layers left out, it is no eigenvector any
    more. Raises ValueError where `pairs` has not these two.

    >>> axes = hessian_directions(surface, eigenpairs(HessianOperator(surface), top=2))
    >>> [round(value, 3) for value in axes.info.eigenvalues]
    [4.0, 1.0]
    """
    require_surface(surface)
    if not isinstance(pairs, Eigenpairs):
        raise TypeError(f"expected Eigenpairs, got {type(pairs).__name__}; eigenpairs(HessianOperator(surface), 2) makes them")
    if choice not in ("top2", "extremes"):
        raise ValueError(f"choice must be 'top2' or 'extremes', got {choice!r}")
    chosen = pairs.select(2, 0) if choice == "top2" else pairs.select(1, 1)
    if len(chosen.values) < 2:
        raise ValueError(f"a Hessian plane needs two eigenpairs, but this surface has {surface.size} parameter")
    eigenvectors = [_with_fixed_sign(vector.to(surface.origin)) for vector in chosen.vectors.T]
    values, residuals = (tuple(part.tolist()) for part in (chosen.values, chosen.residuals))
    kind = "hessian" if choice == "top2" else "hessian_extremes"
    info = DirectionInfo(kind, eigenvalues=values, eigenvalue_residuals=residuals)
    return _as_axes(surface, eigenvectors, normalization, exclude_bn_and_bias, info)


def gradient_directions(
    surface: LossSurface,
    count: int = 2,
    *,
    normalization: Normalization = "model",
    exclude_bn_and_bias: bool = False,
    generator: GeneratorLike = None,
) -> Directions:
    """The gradient of `surface` at its origin, then random directions orthogonal to it, each as long as the parameters.

    `count` is 1 to 3, the gradient included; `generator` draws the others. `normalization` and `exclude_bn_and_bias` are as in
    `random_directions`. Raises ValueError where the gradient is 0.

    >>> gradient_directions(surface, 1, normalization="none")[0]
    tensor([4., 1.])
    """
    require_surface(surface)
    check_count(count)
    gradient = surface.gradient()
    if bool(gradient.norm() == 0):
        raise ValueError("the gradient at the origin is 0, so it gives no direction; use random_directions")
    generator = generator_from(generator)
    drawn = (_normal(surface, generator) for _ in range(count - 1))
    return _as_axes(surface, itertools.chain([gradient], drawn), normalization, exclude_bn_and_bias, DirectionInfo("gradient"))


def adam_directions(
    surface: LossSurface,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    normalization: Normalization = "model",
    exclude_bn_and_bias: bool = False,
) -> Directions:
    """Adam's running mean of the gradient, then that of its square made orthogonal to it, each as long as the parameters.

    `model` is the net whose parameters the `optimizer` holds, that of `surface`. `normalization` and `exclude_bn_and_bias` are as
    in `random_directions`. Raises ValueError where the optimizer has no such means of these parameters.

    >>> adam = torch.optim.Adam(model.parameters())
    >>> nn.MSELoss()(model(batches[0][0]), batches[0][1]).backward()
    >>> adam.step()
    >>> adam_directions(surface, model, adam).info.kind
    'adam'
    """
    require_surface(surface)
    moments = adam_moments(surface, model, optimizer)
    return _as_axes(surface, moments, normalization, exclude_bn_and_bias, DirectionInfo("adam"))


def three_point_directions(surface: LossSurface, second: PointLike, third: PointLike) -> Directions:
    """The plane through the origin of `surface` and two other nets, `second` w₂ and `third` w₃.

    Its axes are u = w₂ − origin, and w₃ − origin less its part along u, so that the second net is at (1, 0) and the third at
    (c, 1): `info.points` has all three. The nets are as `point_in` takes them. What does not move, such as frozen parameters and
    a batch norm's running statistics, stays the surface's own. Raises ValueError where the three lie on a line. Garipov et al.
    2018, without their unit length.

    >>> axes = three_point_directions(surface, torch.tensor([3.0, 1.0]), torch.tensor([2.0, 3.0]))
    >>> [point.coordinates for point in axes.info.points]
    [(0.0, 0.0), (1.0, 0.0), (0.5, 1.0)]
    """
    towards = [_step_to(surface, point) for point in (second, third)]
    along = float(towards[0] @ towards[1] / towards[0].square().sum())
    rest = towards[1] - along * towards[0]
    if bool(towards[0].norm() == 0) or bool(rest.norm() <= 1e-6 * towards[1].norm()):
        raise ValueError("the three points lie on a line, so there is no plane through them; use difference_directions")
    points = tuple(PlanePoint(place) for place in ((0.0, 0.0), (1.0, 0.0), (along, 1.0)))
    axes = [axis.to(surface.origin.dtype) for axis in (towards[0], rest)]
    return with_info(surface, axes, DirectionInfo("three_points", points=points, not_moved=not_moved(surface, second, third)))


def difference_directions(surface: LossSurface, other: PointLike) -> Directions:
    """The one direction from the origin of `surface` to another net, which is at coordinate 1.

    `other` is as `point_in` takes it. What does not move, such as frozen parameters and a batch norm's running statistics, stays
    the surface's own. Raises ValueError where the two are the same.

    >>> difference_directions(surface, torch.tensor([3.0, 1.0]))[0]
    tensor([2., 0.])
    """
    step = _step_to(surface, other).to(surface.origin.dtype)
    return with_info(surface, [step], DirectionInfo("difference", not_moved=not_moved(surface, other)))


def check_count(count: int) -> None:
    """Refuse any number of axes but 1, 2 and 3."""
    if not 1 <= count <= 3:
        raise ValueError(f"count must be 1, 2 or 3 axes, got {count}")


def _as_axes(
    surface: LossSurface,
    vectors: Iterable[Tensor],
    normalization: Normalization,
    exclude_bn_and_bias: bool,
    info: DirectionInfo,
) -> Directions:
    """The vectors, which are overwritten, with what is excluded set to 0, normalised, then made orthogonal at their norms."""
    excluded = biases_and_norm_layers(surface.layout) if exclude_bn_and_bias else []

    def scaled_like_the_net(vector: Tensor) -> Tensor:
        hold(surface, vector, excluded)
        return normalized(surface, vector, normalization)

    axes = orthogonalized(map(scaled_like_the_net, vectors))
    error = filter_norm_error(surface, axes) if normalization == "filter" else None
    scaled = replace(info, normalization=normalization, excluded=tuple(excluded), filter_norm_error=error)
    return with_info(surface, axes, scaled)


def _normal(surface: LossSurface, generator: torch.Generator) -> Tensor:
    # drawn in float64, so that surfaces of either precision have the same directions
    drawn = torch.empty_like(surface.origin)
    for block in blocks(surface.size):
        size = len(drawn[block])
        drawn[block] = torch.randn(size, generator=generator, dtype=torch.float64, device=generator.device)
    return drawn


def _step_to(surface: LossSurface, point: PointLike) -> Tensor:
    """From the origin to `point`, [P] in float64."""
    parameters = parameters_at(surface, point)
    there = surface.layout.flatten(parameters)
    return there.to(surface.device, torch.float64) - surface.origin.double()


def _with_fixed_sign(vector: Tensor) -> Tensor:
    return vector * torch.sign(vector[vector.abs().argmax()])
