"""The coordinates of a grid's cells along each axis, given, or found by how far out the loss has risen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch

from loss_landscape.results.info import SpanSearch
from loss_landscape.surface.plane import Plane
from loss_landscape.surface.strategy import EAGER

RISE_FACTOR = 10.0  # times the loss at the origin
MIN_LOSS = 0.01  # what a smaller loss counts as: ten times nothing is no picture
MAX_DOUBLINGS = 10


@dataclass(frozen=True)
class AutoSpan:
    """A grid's span by how far the loss rises: (−h, h) for the h, a power of two, at which it has just risen by `target_rise`.

    The rise at h is the median of L − L(origin) over the 2D points ±h along each of the D directions; one that is not finite
    counts as risen. From h = 1 on it is doubled until the target is reached, or halved while half of it still reaches it, ten
    times at most. Unless given, the target is ten times the loss at the origin, which counts as 0.01 at least. Raises ValueError
    for a target that is not above 0.

    >>> evaluate_grid(surface, torch.eye(2), 5, AutoSpan(target_rise=3.0)).span
    ((-4.0, 4.0), (-4.0, 4.0))
    """

    target_rise: float | None = None

    def __post_init__(self) -> None:
        if self.target_rise is not None and not 0 < self.target_rise < math.inf:
            raise ValueError(f"target_rise must be finite and above 0, or None, got {self.target_rise}")


Span = float | Sequence[float] | Sequence[Sequence[float]] | Literal["auto"] | AutoSpan
"""(low, high) for all directions, such a pair for each, x for (−x, x), or found by the rise of the loss."""


def axes_over(span: Any, resolution: Any, count: int) -> tuple[np.ndarray, ...]:
    """Equally spaced coordinates for each of `count` axes, float64; over ±x they are exactly symmetric about 0."""
    sides, pairs = _sides(resolution, count), _pairs(span, count)
    return tuple(_axis(float(low), float(high), side) for (low, high), side in zip(pairs, sides, strict=True))


def found_span(plane: Plane, span: AutoSpan, *, baseline: float, rho: float | None = None) -> tuple[float, SpanSearch]:
    """The half-width that `AutoSpan` describes, from the loss at the origin, `baseline`, and what was found on the way."""
    target = RISE_FACTOR * max(abs(baseline), MIN_LOSS) if span.target_rise is None else span.target_rise
    if not 0 < target < math.inf:
        raise ValueError(
            f"span='auto' looks for a rise of the loss above 0, got {target} (the loss at the origin is {baseline}); give "
            "AutoSpan(target_rise=…), or a span of numbers"
        )
    rises: dict[float, float] = {}

    def reached(half_width: float) -> bool:
        rises[half_width] = _median_rise(plane, half_width, baseline, rho)
        return not rises[half_width] < target  # NaN: far enough

    half_width = 1.0
    if reached(half_width):
        while half_width > 2.0**-MAX_DOUBLINGS and reached(half_width / 2):
            half_width /= 2
    else:
        while half_width < 2.0**MAX_DOUBLINGS:
            half_width *= 2
            if reached(half_width):
                break
    return half_width, SpanSearch(target, not rises[half_width] < target, tuple(sorted(rises.items())))


def _sides(resolution: Any, count: int) -> tuple[int, ...]:
    """How many cells each axis has."""
    sides = tuple(resolution) if isinstance(resolution, Sequence) and not isinstance(resolution, str) else (resolution,) * count
    whole = all(isinstance(side, int | np.integer) and not isinstance(side, bool) for side in sides)
    if not whole or len(sides) != count:
        raise ValueError(f"resolution must be an int, or one for each of the {count} directions, got {resolution!r}")
    if min(sides) < 2:
        raise ValueError(f"resolution must be ≥ 2, got {resolution}")
    return tuple(int(side) for side in sides)


def _pairs(span: Any, count: int) -> list[tuple[float, ...]]:
    """(low, high) for each axis."""
    if isinstance(span, Real) and not isinstance(span, bool):
        span = (-span, span)
    wanted = f"span must be (low, high), such a pair for each of the {count} directions, x for (-x, x), 'auto' or AutoSpan(…)"
    try:
        pairs = [tuple(span)] * count if np.ndim(span) == 1 else [tuple(pair) for pair in span]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{wanted}, got {span!r}") from error
    if isinstance(span, str) or len(pairs) != count or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{wanted}, got {span!r}")
    return pairs


def _axis(low: float, high: float, resolution: int) -> np.ndarray:
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"span must be finite with low < high, got ({low}, {high})")
    steps = np.arange(1 - resolution, resolution, 2) / (resolution - 1)  # -1 … 1, with 0 itself in the middle where odd
    axis = (high + low) / 2 + (high - low) / 2 * steps
    axis[0], axis[-1] = low, high
    return axis


def _median_rise(plane: Plane, half_width: float, baseline: float, rho: float | None) -> float:
    count = len(plane.directions)
    edges = half_width * torch.cat([torch.eye(count), -torch.eye(count)]).double()
    losses = plane.evaluate(edges, EAGER, rho).cpu().numpy()
    rises = np.where(np.isfinite(losses), losses - baseline, math.inf)
    return float(np.median(rises))
