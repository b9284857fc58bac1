"""Curves between two nets: mixtures of control points that begin at the one and end at the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import comb
from typing import Any

import torch
from torch import Tensor

Basis = Callable[[Tensor, int], Tensor]
"""(t [T], K) → how much of each of K control points makes up the curve at each t, [T, K] float64; its rows sum to 1."""


@dataclass(frozen=True, eq=False)
class Curve:
    """θ(t) = Σ_k basis_k(t)·controls[k], t from 0 to 1, in a surface's layout; its ends bit for bit the first and the last."""

    controls: Tensor  # [K, P], K ≥ 2: the start, the bends, the end
    basis: Basis
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def start(self) -> Tensor:
        """The point [P] at t = 0."""
        return self.controls[0]

    @property
    def end(self) -> Tensor:
        """The point [P] at t = 1."""
        return self.controls[-1]

    @property
    def num_bends(self) -> int:
        """How many control points there are beside the ends."""
        return len(self.controls) - 2

    def weights(self, t: Tensor) -> Tensor:
        """The share of each control point at each `t` [T], [T, K] float64 on the CPU."""
        t = torch.as_tensor(t, dtype=torch.float64)
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


def bezier(controls: Tensor, meta: Mapping[str, Any] | None = None) -> Curve:
    """The Bézier curve of `controls` [K, P]: of degree K − 1, it passes through the first and the last."""
    return Curve(_checked(controls), bernstein, {"kind": "bezier", **(meta or {})})


def polychain(controls: Tensor, meta: Mapping[str, Any] | None = None) -> Curve:
    """The chain of straight lines through `controls` [K, P], each of which takes the same part of t."""
    return Curve(_checked(controls), hats, {"kind": "polychain", **(meta or {})})


def line(start: Tensor, end: Tensor) -> Curve:
    """The straight line between two points [P]."""
    return Curve(torch.stack([start, end]), bernstein, {"kind": "line"})


def evenly_spaced(start: Tensor, end: Tensor, count: int) -> Tensor:
    """`count` points [count, P] on the straight line, the ends left out; a curve with these as bends is that line."""
    straight = line(start, end)
    return torch.stack([straight.point(number / (count + 1)) for number in range(1, count + 1)])


def bernstein(t: Tensor, count: int) -> Tensor:
    """Bernstein's polynomials of degree count − 1 at `t` [T]: binomial(n, k) tᵏ(1 − t)ⁿ⁻ᵏ, [T, count]."""
    degree = count - 1
    return torch.stack([comb(degree, k) * t**k * (1 - t) ** (degree - k) for k in range(count)], dim=-1)


def hats(t: Tensor, count: int) -> Tensor:
    """Piecewise linear functions of `t` [T], each 1 at its own of `count` even places and 0 at the others, [T, count]."""
    places = torch.arange(count, dtype=t.dtype)
    return (1 - (t[:, None] * (count - 1) - places).abs()).clamp_min(0)


def _checked(controls: Tensor) -> Tensor:
    if controls.dim() != 2 or len(controls) < 2:
        raise ValueError(f"expected control points [K, P], K ≥ 2, got {list(controls.shape)}")
    return controls
