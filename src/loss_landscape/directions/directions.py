"""Axes for planes, lines and volumes."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from loss_landscape.objective.layout import ParameterLayout
from loss_landscape.randomness import GeneratorLike, generator_from
from loss_landscape.spectra.lanczos import Eigenpairs
from loss_landscape.surface.optimizer_state import adam_moments
from loss_landscape.surface.surface import LossSurface

Point = nn.Module | Mapping[str, Tensor] | Tensor | str | Path
"""Where a net is: the net itself, its state dict, a file of that, or its moving parameters [P]."""

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
    generator: GeneratorLike = None,
    exclude_bn_and_bias: bool = True,
) -> Directions:
    """`count` Gaussian directions, scaled like the net's own parameters, orthogonal to each other.

    `filter` gives each output unit's weights the norm of the net's (Li et al. 2018), `layer` each tensor, `model` the whole,
    `weight` multiplies every entry by the parameter's size. They are normalised first, then made orthogonal, then brought back
    to their norm: the other order leaves axes that are neither. Biases and norm layers stay where they are, or each counts as one
    unit.
    The draws depend on the generator and the parameters' shapes alone (None: the same ones every time).
    """
    check_count(count)
    generator = generator_from(generator)
    drawn = [_normal(surface, generator) for _ in range(count)]
    vectors, meta = _as_axes(surface, drawn, normalization, exclude_bn_and_bias)
    return described(surface, "random", vectors, meta)


def hessian_directions(
    surface: LossSurface,
    pairs: Eigenpairs,
    choice: Literal["top2", "extremes"] = "top2",
    normalization: Normalization = "none",
    exclude_bn_and_bias: bool = False,
) -> Directions:
    """Two Hessian eigenvectors of length 1: the two largest eigenvalues', or the largest's and the smallest's.

    The sign of an eigenvector means nothing: its largest entry is made positive. Normalised otherwise than by `model`, or with
    biases and norm layers left out, it is no eigenvector any more.
    """
    if choice not in ("top2", "extremes"):
        raise ValueError(f"choice must be 'top2' or 'extremes', got {choice!r}")
    chosen = pairs.select(2, 0) if choice == "top2" else pairs.select(1, 1)
    if len(chosen.values) < 2:
        raise ValueError(f"a Hessian plane needs two eigenpairs, but this surface has {surface.size} parameter")
    eigenvectors = [_with_fixed_sign(vector.to(surface.origin)) for vector in chosen.vectors.T]
    vectors, meta = _as_axes(surface, eigenvectors, normalization, exclude_bn_and_bias)
    meta |= {"eigenvalues": chosen.values.tolist(), "eigenvalue_residuals": chosen.residuals.tolist()}
    return described(surface, "hessian" if choice == "top2" else "hessian_extremes", vectors, meta)


def gradient_directions(
    surface: LossSurface,
    count: int = 2,
    normalization: Normalization = "model",
    generator: GeneratorLike = None,
    exclude_bn_and_bias: bool = False,
) -> Directions:
    """The gradient at the origin, then random directions orthogonal to it, by default each as long as the parameters."""
    check_count(count)
    gradient = surface.gradient()
    if bool(gradient.norm() == 0):
        raise ValueError("the gradient at the origin is 0, so it gives no direction; use random_directions")
    generator = generator_from(generator)
    drawn = [_normal(surface, generator) for _ in range(count - 1)]
    vectors, meta = _as_axes(surface, [gradient, *drawn], normalization, exclude_bn_and_bias)
    return described(surface, "gradient", vectors, meta)


def adam_directions(
    surface: LossSurface,
    model: nn.Module,
    optimizer: Optimizer,
    normalization: Normalization = "model",
    exclude_bn_and_bias: bool = False,
) -> Directions:
    """Adam's running mean of the gradient, then that of its square made orthogonal to it, by default as long as the parameters.

    `model` is the net whose parameters the optimizer holds.
    """
    vectors, meta = _as_axes(surface, adam_moments(surface, model, optimizer), normalization, exclude_bn_and_bias)
    return described(surface, "adam", vectors, meta)


def three_point_directions(surface: LossSurface, second: Point, third: Point) -> Directions:
    """The plane through the origin and two other nets w₂ and w₃: u = w₂ − origin, and w₃ − origin less its part along u.

    The second net is at (1, 0) and the third at (c, 1): `meta["points"]` has all three. What does not move, such as frozen
    parameters and a batch norm's running statistics, stays the surface's own. Garipov et al. 2018, without their unit length.
    """
    towards = [_step_to(surface, point) for point in (second, third)]
    along = float(towards[0] @ towards[1] / towards[0].square().sum())
    rest = towards[1] - along * towards[0]
    if bool(towards[0].norm() == 0) or bool(rest.norm() <= 1e-6 * towards[1].norm()):
        raise ValueError("the three points lie on a line, so there is no plane through them; use difference_directions")
    points = [{"alpha": alpha, "beta": beta} for alpha, beta in ((0.0, 0.0), (1.0, 0.0), (along, 1.0))]
    meta = {"normalization": "none", "excluded": [], "points": points}
    return described(surface, "three_points", [axis.to(surface.origin.dtype) for axis in (towards[0], rest)], meta)


def difference_directions(surface: LossSurface, other: Point) -> Directions:
    """The one direction from the origin to another net, which is at coordinate 1.

    What does not move, such as frozen parameters and a batch norm's running statistics, stays the surface's own.
    """
    step = _step_to(surface, other).to(surface.origin.dtype)
    return described(surface, "difference", [step], {"normalization": "none", "excluded": []})


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


def parameters_at(surface: LossSurface, point: Point) -> dict[str, Tensor]:
    """The moving parameters of a net like the surface's own, by name; a file's stay on disk until they are read."""
    if isinstance(point, str | Path):
        point = torch.load(point, map_location="cpu", mmap=True, weights_only=True)
    if isinstance(point, Tensor):
        if point.dim() != 1:
            raise ValueError(f"expected a vector [P] with P = {surface.size} parameters, got {list(point.shape)}")
        return surface.layout.unflatten(point.detach())
    state = dict(point.named_parameters()) if isinstance(point, nn.Module) else point
    _require_fit(surface.layout, state)
    return {name: state[name].detach() for name in surface.layout.names}


def check_count(count: int) -> None:
    """Refuse any number of axes but 1, 2 and 3."""
    if not 1 <= count <= 3:
        raise ValueError(f"count must be 1, 2 or 3 axes, got {count}")


def described(surface: LossSurface, kind: str, vectors: Sequence[Tensor], meta: Mapping[str, Any]) -> Directions:
    """The vectors with `meta` and what every kind of directions tells: norms, the origin's norm, the largest cosine."""
    norms = [float(vector.double().norm()) for vector in vectors]
    if 0.0 in norms:
        raise ValueError(f"the directions have norms {norms}; each must be > 0")
    origin_norm = float(surface.origin.double().norm())
    facts = {
        "kind": kind,
        "direction_norms": norms,
        "origin_norm": origin_norm,
        "relative_norms": [norm / origin_norm for norm in norms] if origin_norm else None,
        "cosine": _largest_cosine(vectors),
    }
    return Directions(tuple(vectors), {**facts, **meta})


def _largest_cosine(vectors: Sequence[Tensor]) -> float:
    """The cosine between two axes of the largest size; 0 for a single axis."""
    units = [vector.double() / vector.double().norm() for vector in vectors]
    cosines = [float(a @ b) for i, a in enumerate(units) for b in units[:i]]
    return max(cosines, key=abs, default=0.0)


def _as_axes(
    surface: LossSurface, vectors: Sequence[Tensor], normalization: Normalization, exclude_bn_and_bias: bool
) -> tuple[list[Tensor], dict[str, Any]]:
    """The vectors with what is excluded set to 0, normalised, then made orthogonal at their norms; and what meta says of that."""
    excluded = _excluded(surface.layout) if exclude_bn_and_bias else []
    moving = _moving(surface, excluded)
    axes = orthogonalized([normalized(surface, vector * moving, normalization) for vector in vectors])
    error = _filter_norm_error(surface, axes) if normalization == "filter" else None
    return axes, {"normalization": normalization, "excluded": excluded, "filter_norm_error": error}


def _moving(surface: LossSurface, excluded: Sequence[str]) -> Tensor:
    """1 where a direction may point, 0 in the parameters called `excluded`, [P]."""
    layout = surface.layout
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


def _step_to(surface: LossSurface, point: Point) -> Tensor:
    """From the origin to `point`, [P] in float64."""
    there = surface.layout.flatten(parameters_at(surface, point))
    return there.to(surface.device, torch.float64) - surface.origin.double()


def _require_fit(layout: ParameterLayout, state: Mapping[str, Tensor]) -> None:
    """Refuse a state dict that lacks parameters, or has them in other shapes."""
    absent = [name for name in layout.names if name not in state]
    if absent:
        raise ValueError(f"expected a state dict of the surface's net, got one without {_first(absent)}; it has {_first(state)}")
    shapes = zip(layout.names, layout.shapes, strict=True)
    other = [f"{name} {list(state[name].shape)}, not {list(shape)}" for name, shape in shapes if state[name].shape != shape]
    if other:
        raise ValueError(f"expected a state dict of the surface's net, got one of other shapes: {_first(other)}")


def _first(names: Collection[str]) -> str:
    return ", ".join([*itertools.islice(names, 3), *["…"] * (len(names) > 3)]) or "nothing"


def _with_fixed_sign(vector: Tensor) -> Tensor:
    return vector * torch.sign(vector[vector.abs().argmax()])
