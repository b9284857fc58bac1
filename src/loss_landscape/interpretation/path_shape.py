"""The shape of a training path in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loss_landscape.results.trajectory import Trajectory

MIN_POINTS = 4
"""Checkpoints below which a path has no shape."""


@dataclass(frozen=True)
class PathShape:
    """A path's steps and turns, on its plane.

    `length` is the sum of its steps over ‖θ‖ (None: unknown). `mean_cosine` is that between successive steps: 1 straight on, −1
    back and forth. `winding` is how often it goes around its end, `inward` whether it comes closer meanwhile. `descending` is
    the share of steps after which its own loss is lower, `loss_change` the share of the first loss that is gone at the end.
    `plane_gap` is the median |plane's loss − own loss| over the range of its own losses.
    """

    num_points: int
    length: float | None
    mean_cosine: float
    winding: float
    inward: bool
    descending: float
    loss_change: float
    plane_gap: float

    @classmethod
    def of(cls, path: Trajectory) -> PathShape | None:
        """That of a path; None where it has too few checkpoints on a plane, or losses that are not finite."""
        losses, places = np.array(path.losses), _in_parameter_space(path)
        if len(losses) < MIN_POINTS or places.shape[1] < 2 or not np.isfinite(losses).all():
            return None
        steps = np.diff(places, axis=0)
        lengths = np.linalg.norm(steps, axis=1)
        total, norm = float(lengths.sum()), path.directions.origin_norm
        winding, inward = _winding(places)
        gaps = np.abs(np.array(path.plane_losses) - losses)
        return cls(
            len(losses),
            total / norm if norm else None,
            _mean_cosine(steps, lengths),
            winding,
            inward,
            float((np.diff(losses) < 0).mean()),
            _ratio(float(losses[0] - losses[-1]), abs(float(losses[0]))),
            _ratio(float(np.median(gaps)), float(np.ptp(losses))),
        )


def _in_parameter_space(path: Trajectory) -> np.ndarray:
    """The places on the plane in lengths of parameter space, so that axes of other lengths don't bend the path."""
    norms = path.directions.norms
    return path.coordinates * np.array(norms) if len(norms) == path.coordinates.shape[1] else path.coordinates


def _mean_cosine(steps: np.ndarray, lengths: np.ndarray) -> float:
    products = (steps[1:] * steps[:-1]).sum(axis=1)
    sizes = lengths[1:] * lengths[:-1]
    return float((products[sizes > 0] / sizes[sizes > 0]).mean()) if (sizes > 0).any() else 0.0


def _winding(places: np.ndarray) -> tuple[float, bool]:
    """How often the path goes around its end, and whether its distance from it falls meanwhile."""
    around = places[:-1, :2] - places[-1, :2]
    radii = np.linalg.norm(around, axis=1)
    around = around[radii > 1e-3 * radii.max()] if radii.max() > 0 else around[:0]
    if len(around) < 3:
        return 0.0, False
    turns = np.diff(np.unwrap(np.arctan2(around[:, 1], around[:, 0])))
    third = max(len(radii) // 3, 1)
    return float(abs(turns.sum()) / (2 * np.pi)), bool(radii[-third:].mean() < 0.5 * radii[:third].mean())


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
