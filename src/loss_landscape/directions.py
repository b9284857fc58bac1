"""Axes for planes, lines and volumes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from loss_landscape.lanczos import Eigenpairs
from loss_landscape.parameters import ParameterLayout
from loss_landscape.surface import LossSurface

Normalization = Literal["filter", "layer", "weight", "model", "none"]
NORMALIZATIONS = ("filter", "layer", "weight", "model", "none")


@dataclass(frozen=True, eq=False)
class Directions(Sequence[Tensor]):
    """Vectors [P] to move along, one for each axis, and in `meta` how they came about."""

    vectors: tuple[Tensor, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, index: int) -> Tensor:
        return self.vectors[index]

    def __len__(self) -> int:
        return len(self.vectors)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.vectors)


def random_directions(
    surface: LossSurface,
    count: int = 2,
    normalization: Normalization = "filter",
    generator: torch.Generator | None = None,
    exclude_bn_and_bias: bool = True,
) -> Directions:
    """`count` Gaussian directions, scaled like the net's own parameters, orthogonal to each other.

    `filter` gives each output unit's weights the norm of the net's (Li et al. 2018), `layer` each tensor, `model` the whole,
    `weight` multiplies every entry by the parameter's size. They are normalised first, then made orthogonal, then brought back
    to their norm: the other order leaves axes that are neither. Biases and norm layers stay where they are, or each counts as one
    unit.
    The draws depend on the generator and the parameters' shapes alone (None: the same ones every time).
    """
    _check_count(count)
    generator = generator or torch.Generator().manual_seed(0)
    moving = _moving(surface, exclude_bn_and_bias)
    drawn = [_normal(surface, generator) * moving for _ in range(count)]
    scaled = [normalized(surface, direction, normalization) for direction in drawn]
    vectors = orthogonalized(scaled)
    meta = {
        "normalization": normalization,
        "excluded": _excluded(surface.layout) if exclude_bn_and_bias else [],
        "filter_norm_error": _filter_norm_error(surface, vectors) if normalization == "filter" else None,
    }
    return described(surface, "random", vectors, meta)


def hessian_directions(
    surface: LossSurface, pairs: Eigenpairs, choice: Literal["top2", "extremes"] = "top2", normalization: Normalization = "none"
) -> Directions:
    """Two Hessian eigenvectors of length 1: the two largest eigenvalues', or the largest's and the smallest's.

    The sign of an eigenvector means nothing: its largest entry is made positive. A normalised eigenvector is none any more.
    """
    if choice not in ("top2", "extremes"):
        raise ValueError(f"choice must be 'top2' or 'extremes', got {choice!r}")
    chosen = pairs.select(2, 0) if choice == "top2" else pairs.select(1, 1)
    if len(chosen.values) < 2:
        raise ValueError(f"a Hessian plane needs two eigenpairs, but this surface has {surface.size} parameter")
    vectors = [normalized(surface, _with_fixed_sign(vector.to(surface.origin)), normalization) for vector in chosen.vectors.T]
    if normalization != "none":
        vectors = orthogonalized(vectors)
    meta = {
        "normalization": normalization,
        "excluded": [],
        "eigenvalues": chosen.values.tolist(),
        "eigenvalue_residuals": chosen.residuals.tolist(),
    }
    return described(surface, "hessian" if choice == "top2" else "hessian_extremes", vectors, meta)


def gradient_directions(
    surface: LossSurface, count: int = 2, generator: torch.Generator | None = None, exclude_bn_and_bias: bool = True
) -> Directions:
    """The gradient at the origin as long as the parameters, then filter-normalised random directions orthogonal to it."""
    _check_count(count)
    gradient = surface.gradient()
    if bool(gradient.norm() == 0):
        raise ValueError("the gradient at the origin is 0, so it gives no direction; use random_directions")
    vectors = [normalized(surface, gradient, "model")]
    excluded: list[str] = []
    if count > 1:
        others = random_directions(surface, count - 1, "filter", generator, exclude_bn_and_bias)
        vectors, excluded = orthogonalized([*vectors, *others]), others.meta["excluded"]
    return described(surface, "gradient", vectors, {"normalization": "model", "excluded": excluded})


def custom_directions(surface: LossSurface, *vectors: Tensor) -> Directions:
    """The given vectors [P] as they are, described like any others."""
    for vector in vectors:
        surface.layout.unflatten(vector)
    placed = [vector.detach().to(surface.origin) for vector in vectors]
    return described(surface, "custom", placed, {"normalization": "none", "excluded": []})


def normalized(surface: LossSurface, direction: Tensor, normalization: Normalization) -> Tensor:
    """`direction` [P] scaled to the net's parameters; zeros stay zeros, and what they leave out counts for no norm."""
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, got {normalization!r}")
    if normalization == "none":
        return direction
    if normalization == "weight":
        return direction * surface.origin.abs()
    if normalization == "model":
        return direction * _ratio(torch.where(direction != 0, surface.origin, 0).norm(), direction.norm())
    layout = surface.layout
    parts = zip(layout.unflatten(direction).values(), layout.unflatten(surface.origin).values(), strict=True)
    if normalization == "layer":
        return layout.flatten([part * _ratio(own.norm(), part.norm()) for part, own in parts])
    scaled = [
        part * _ratio(_unit_norms(own, dim, norm), _unit_norms(part, dim, norm))
        for (part, own), dim, norm in zip(parts, layout.unit_dims, layout.in_norm_layer, strict=True)
    ]
    return layout.flatten(scaled)


def orthogonalized(vectors: Sequence[Tensor]) -> list[Tensor]:
    """The vectors with each one's part along the earlier ones removed, and its norm restored."""
    done: list[Tensor] = []
    for vector in vectors:
        norm = vector.double().norm()
        rest = vector.double()
        for _ in range(2):
            for other in done:
                rest = rest - (rest @ other.double()) / other.double().square().sum() * other.double()
        if bool(rest.norm() <= 1e-6 * norm):  # NaN passes: a diverged net has a plane of NaN
            raise ValueError(f"direction {len(done) + 1} lies in the span of the others (or is 0), so there is no such axis")
        done.append((rest * (norm / rest.norm())).to(vector.dtype))
    return done


def described(surface: LossSurface, kind: str, vectors: Sequence[Tensor], meta: Mapping[str, Any]) -> Directions:
    """The vectors with `meta` and what every kind of directions tells: norms, the origin's norm, the largest cosine."""
    norms = [float(vector.double().norm()) for vector in vectors]
    if 0.0 in norms:
        raise ValueError(f"the directions have norms {norms}; each must be > 0")
    facts = {
        "kind": kind,
        "direction_norms": norms,
        "origin_norm": float(surface.origin.double().norm()),
        "cosine": _largest_cosine(vectors),
    }
    return Directions(tuple(vectors), {**facts, **meta})


def _largest_cosine(vectors: Sequence[Tensor]) -> float:
    """The cosine between two axes of the largest size; 0 for a single axis."""
    units = [vector.double() / vector.double().norm() for vector in vectors]
    cosines = [float(a @ b) for i, a in enumerate(units) for b in units[:i]]
    return max(cosines, key=abs, default=0.0)


def _moving(surface: LossSurface, exclude_bn_and_bias: bool) -> Tensor:
    """1 where a direction may point, 0 in biases and norm layers where these are excluded, [P]."""
    layout = surface.layout
    excluded = set(_excluded(layout)) if exclude_bn_and_bias else set()
    if len(excluded) == len(layout.names):
        raise ValueError("every parameter is a bias or in a norm layer, so nothing can move; set exclude_bn_and_bias=False")
    like = surface.origin
    parts = zip(layout.names, layout.shapes, strict=True)
    return layout.flatten([(torch.zeros if name in excluded else torch.ones)(shape).to(like) for name, shape in parts])


def _excluded(layout: ParameterLayout) -> list[str]:
    return [n for n, shape, norm in zip(layout.names, layout.shapes, layout.in_norm_layer, strict=True) if len(shape) < 2 or norm]


def _normal(surface: LossSurface, generator: torch.Generator) -> Tensor:
    # drawn in float64, so that surfaces of either precision have the same directions
    return torch.randn(surface.size, generator=generator, dtype=torch.float64, device=generator.device).to(surface.origin)


def _unit_norms(tensor: Tensor, unit_dim: int, in_norm_layer: bool) -> Tensor:
    """The norm of each output unit's weights, shaped to multiply `tensor`; a bias or a norm layer's tensor is one unit."""
    if tensor.dim() < 2 or in_norm_layer:
        return tensor.norm()
    others = tuple(d for d in range(tensor.dim()) if d != unit_dim)
    return torch.linalg.vector_norm(tensor, dim=others, keepdim=True)


def _ratio(wanted: Tensor, given: Tensor) -> Tensor:
    return torch.where(given == 0, torch.zeros_like(given), wanted / given)


def _filter_norm_error(surface: LossSurface, vectors: Sequence[Tensor]) -> float:
    """How far, relatively, the norm of any moving filter is from the net's after the axes were made orthogonal."""
    worst = 0.0
    for vector in vectors:
        target = normalized(surface, vector, "filter")
        moved = target != 0
        if bool(moved.any()):
            worst = max(worst, float((vector[moved] / target[moved] - 1).abs().max()))
    return worst


def _with_fixed_sign(vector: Tensor) -> Tensor:
    return vector * torch.sign(vector[vector.abs().argmax()])


def _check_count(count: int) -> None:
    if not 1 <= count <= 3:
        raise ValueError(f"count must be 1, 2 or 3 axes, got {count}")
