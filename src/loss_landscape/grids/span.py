"""The coordinates of a grid's cells along each axis, given, or found by how far out the loss has risen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from loss_landscape.directions.directions import Directions
from loss_landscape.surface.strategy import EAGER
from loss_landscape.surface.surface import LossSurface

Span = Sequence[float] | Sequence[Sequence[float]]

RISE_FACTOR = 10.0  # times the loss at the origin
LEAST_LOSS = 0.01  # what a smaller loss counts as: ten times nothing is no picture
MOST_DOUBLINGS = 10


def axes_over(span: Span, resolution: int, count: int) -> tuple[np.ndarray, ...]:
    """`resolution` equally spaced coordinates for each of `count` axes, float64; over ±x they are exactly symmetric about 0."""
    if resolution < 2:
        raise ValueError(f"resolution must be ≥ 2, got {resolution}")
    if isinstance(span, str):
        raise ValueError(f"span must be (low, high), or such a pair for each of the {count} directions, got {span!r}")
    pairs = [tuple(span)] * count if np.ndim(span) == 1 else [tuple(pair) for pair in span]
    if len(pairs) != count or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"span must be (low, high), or such a pair for each of the {count} directions, got {span}")
    return tuple(_axis(float(low), float(high), resolution) for low, high in pairs)


def _axis(low: float, high: float, resolution: int) -> np.ndarray:
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"span must be finite with low < high, got ({low}, {high})")
    steps = np.arange(1 - resolution, resolution, 2) / (resolution - 1)  # -1 … 1, with 0 itself in the middle where odd
    axis = (high + low) / 2 + (high - low) / 2 * steps
    axis[0], axis[-1] = low, high
    return axis


def auto_span(
    surface: LossSurface, directions: Directions, target_rise: float | None = None
) -> tuple[tuple[float, float], dict[str, Any]]:
    """(−h, h) for the h, a power of two, at which the loss has just risen by `target_rise`, and what was found on the way.

    The rise at h is the median of L − L(origin) over the 2D points ±h along each of the D directions; one that is not finite
    counts as risen. From h = 1 on it is doubled until the target is reached, or halved while half of it still reaches it, ten
    times at most. Unless given, the target is ten times the loss at the origin, which counts as 0.01 at least.
    """
    baseline = surface.loss()
    target = RISE_FACTOR * max(abs(baseline), LEAST_LOSS) if target_rise is None else target_rise
    if not 0 < target < math.inf:
        raise ValueError(
            f"span='auto' looks for a rise of the loss above 0, got {target} (the loss at the origin is {baseline}); give "
            "target_rise, or a span of numbers"
        )
    rises: dict[float, float] = {}

    def reached(half_width: float) -> bool:
        rises[half_width] = _median_rise(surface, directions, half_width, baseline)
        return not rises[half_width] < target  # NaN: far enough

    half_width = 1.0
    if reached(half_width):
        while half_width > 2.0**-MOST_DOUBLINGS and reached(half_width / 2):
            half_width /= 2
    else:
        while half_width < 2.0**MOST_DOUBLINGS:
            half_width *= 2
            if reached(half_width):
                break
    found = {"target_rise": target, "reached": not rises[half_width] < target, "median_rises": sorted(rises.items())}
    return (-half_width, half_width), {"span_found": found}


def _median_rise(surface: LossSurface, directions: Directions, half_width: float, baseline: float) -> float:
    edges = half_width * torch.cat([torch.eye(len(directions)), -torch.eye(len(directions))]).double()
    losses = surface.plane(directions).evaluate(edges, EAGER).cpu().numpy()
    rises = np.where(np.isfinite(losses), losses - baseline, math.inf)
    return float(np.median(rises))
