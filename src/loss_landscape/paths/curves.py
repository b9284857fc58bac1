"""Curves between two nets: mixtures of control points that begin at the one and end at the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from math import comb
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loss_landscape.directions.points import PointLike, not_moved
from loss_landscape.nested import as_tensor
from loss_landscape.results.result import Result, array
from loss_landscape.surface.surface import LossSurface

Basis = Callable[[Tensor, int], Tensor]
"""(t [T], K) → how much of each of K control points makes up the curve at each t, [T, K] float64; its rows sum to 1."""


@dataclass(frozen=True)
class CurveInfo:
    """How a curve came about.

    `kind` is bezier, polychain or line, and custom for a basis of one's own. The rest is of fitted curves alone: the `steps` of
    Adam that were taken with the learning rate `lr`, the `seconds` they took, each step's loss at its t (`training_losses`), and
    in `fell_back` why the curve is the one that was given, None where it is the fitted one. `not_moved` names what the surface
    holds though the nets at the ends have it otherwise, as in `DirectionInfo`.

    >>> line(torch.zeros(2), torch.ones(2)).info.kind
    'line'
    """

    kind: str = "custom"
    steps: int | None = None
    lr: float | None = None
    seconds: float | None = None
    fell_back: str | None = None
    not_moved: tuple[str, ...] = ()
    training_losses: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold; of a curve that was not fitted its kind alone."""
        told = {"not_moved": list(self.not_moved)} if self.not_moved else {}
        if self.steps is None:
            return {"kind": self.kind, **told}
        fitted = {name: entry for name, entry in asdict(self).items() if name != "not_moved"}
        return {**fitted, **told, "training_losses": list(self.training_losses)}

    @classmethod
    def from_json(cls, entries: Mapping[str, Any]) -> CurveInfo:
        """The info of which `to_json` made these `entries`."""
        return cls(**dict(entries) | {name: tuple(entries.get(name, ())) for name in ("training_losses", "not_moved")})


@dataclass(frozen=True, eq=False, repr=False)
class Curve(Result):
    """θ(t) = Σ_k basis_k(t)·controls[k], t from 0 to 1, in a surface's layout; its ends bit for bit the first and the last.

    `controls` [K, P], K ≥ 2, are the start, the control points between, and the end. `basis(t, K)` gives the share of each of K
    control points at each t [T], [T, K] float64. `info` tells how the curve came about.

    >>> curve = bezier(torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 0.0]]))
    >>> curve
    Curve(bezier, 3 control points of 2 parameters)
    >>> curve.point(0.5)
    tensor([1., 1.])
    """

    controls: Tensor
    basis: Basis
    info: CurveInfo = CurveInfo()

    def __post_init__(self) -> None:
        if self.controls.dim() != 2 or len(self.controls) < 2:
            raise ValueError(f"expected control points [K, P], K ≥ 2, got {list(self.controls.shape)}")

    @property
    def start(self) -> Tensor:
        """The point [P] at t = 0."""
        return self.controls[0]

    @property
    def end(self) -> Tensor:
        """The point [P] at t = 1."""
        return self.controls[-1]

    @property
    def num_control_points(self) -> int:
        """K, the ends among them."""
        return len(self.controls)

    @property
    def meta(self) -> dict[str, Any]:
        """`info` in its JSON form."""
        return self.info.to_json()

    def weights(self, t: Tensor) -> Tensor:
        """The share of each control point at each `t` [T], [T, K] float64 on the CPU; ValueError for a t outside 0 … 1."""
        t = torch.as_tensor(as_tensor(t), dtype=torch.float64)
        if not bool(((t >= 0) & (t <= 1)).all()):
            raise ValueError(f"t must be from 0 to 1, got {t.tolist()}")
        return self.basis(t, len(self.controls))

    def point(self, t: float) -> Tensor:
        """The parameters [P] at `t`; build a net of them with `surface.layout.unflatten`."""
        shares = self.weights(torch.tensor([t], dtype=torch.float64))[0].tolist()
        first, *rest = [(share, control) for share, control in zip(shares, self.controls, strict=True) if share != 0]
        point = first[0] * first[1]
        for share, control in rest:
            point = point.add(control, alpha=share)
        return point

    def to_arrays(self) -> dict[str, np.ndarray]:
        """`controls` [K, P], and `info` as JSON; ValueError for a basis of one's own, which is a function."""
        if BASES.get(self.info.kind) is not self.basis:
            raise ValueError(
                "a curve of a basis of one's own can't be written: keep its controls, and make the curve of them again"
            )
        return {"controls": array(self.controls), "info": np.array(json.dumps(self.meta))}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Curve:
        """The curve of which `to_arrays` made these `arrays`, on the CPU."""
        info = CurveInfo.from_json(json.loads(str(arrays["info"])))
        return cls(torch.from_numpy(arrays["controls"]), BASES[info.kind], info)

    def __repr__(self) -> str:
        facts = [self.info.kind, f"{self.num_control_points} control points of {self.controls.shape[1]} parameters"]
        facts += [] if self.info.steps is None else [f"fitted by {self.info.steps} steps"]
        facts += [] if self.info.fell_back is None else [f"fell back: {self.info.fell_back}"]
        return f"Curve({', '.join(facts)})"


def bezier(controls: Tensor) -> Curve:
    """The Bézier curve of `controls` [K, P]: of degree K − 1, it passes through the first and the last.

    >>> bezier(torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 0.0]])).point(0.5)
    tensor([1., 1.])
    """
    return Curve(controls, bernstein, CurveInfo("bezier"))


def polychain(controls: Tensor) -> Curve:
    """The chain of straight lines through `controls` [K, P], each of which takes the same part of t.

    >>> polychain(torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 0.0]])).point(0.5)
    tensor([1., 2.])
    """
    return Curve(controls, hats, CurveInfo("polychain"))


def line(start: Tensor, end: Tensor) -> Curve:
    """The straight line from the point `start` [P] to the point `end` [P].

    >>> line(torch.tensor([0.0, 0.0]), torch.tensor([2.0, 4.0])).point(0.25)
    tensor([0.5000, 1.0000])
    """
    if not isinstance(start, Tensor) or not isinstance(end, Tensor):
        other = type(end if isinstance(start, Tensor) else start).__name__
        raise TypeError(
            f"expected two points [P], got a {other}; barrier takes nets, point_in(surface, net) gives the point of one"
        )
    return Curve(torch.stack([start, end]), bernstein, CurveInfo("line"))


def between_nets(surface: LossSurface, curve: Curve, start: PointLike, end: PointLike) -> Curve:
    """The curve with what `surface` does not move of the nets at its ends in its info."""
    return replace(curve, info=replace(curve.info, not_moved=not_moved(surface, start, end)))


def require_curve(curve: Any, size: int) -> None:
    """TypeError for what is no curve, ValueError for a curve of other than `size` parameters, those of a surface."""
    if not isinstance(curve, Curve):
        raise TypeError(
            f"expected a Curve, got {type(curve).__name__}; bezier, polychain and line make one, fit_bezier fits one between nets"
        )
    if curve.controls.shape[1] != size:
        raise ValueError(
            f"expected a curve in the surface's layout, with P = {size} moving parameters, got {curve.controls.shape[1]}"
        )


def evenly_spaced(start: Tensor, end: Tensor, count: int) -> Tensor:
    """`count` points [count, P] on the straight line, the ends [P] among them; a curve with these as controls is that line."""
    straight = line(start, end)
    between = [straight.point(number / (count - 1)) for number in range(1, count - 1)]
    return torch.stack([start, *between, end])


def bernstein(t: Tensor, count: int) -> Tensor:
    """Bernstein's polynomials of degree count − 1 at `t` [T]: binomial(n, k) tᵏ(1 − t)ⁿ⁻ᵏ, [T, count]."""
    degree = count - 1
    return torch.stack([comb(degree, k) * t**k * (1 - t) ** (degree - k) for k in range(count)], dim=-1)


def hats(t: Tensor, count: int) -> Tensor:
    """Piecewise linear functions of `t` [T], each 1 at its own of `count` even places and 0 at the others, [T, count]."""
    places = torch.arange(count, dtype=t.dtype)
    return (1 - (t[:, None] * (count - 1) - places).abs()).clamp_min(0)


BASES: dict[str, Basis] = {"bezier": bernstein, "polychain": hats, "line": bernstein}
