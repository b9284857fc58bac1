"""The shape of a line or a plane in a few numbers."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass

import numpy as np

from loss_landscape.results.grid import Grid
from loss_landscape.results.info import NOISE_MARGIN
from loss_landscape.topology import merge_tree

REAL_SHARE = 0.02
"""The share of a grid's relief below which a dip counts for nothing."""

FILTER_RANGE = 0.1
"""Where sharpness is read off: a tenth of each filter's norm away."""


@dataclass(frozen=True)
class Terrain:
    """A grid's relief. `loss` is the centre's, `relief` the highest less the lowest loss, `resolvable` the least that counts.

    `drop` is how far the lowest cell is below the centre, `barrier` how far one has to climb on the way there. `num_minima`
    counts those deeper than `resolvable`. `gradient_norm` and `origin_norm` are None where they are not known.
    """

    loss: float
    relief: float
    resolvable: float
    drop: float
    barrier: float
    num_minima: int
    num_nonfinite: int
    size: int
    dim: int
    gradient_norm: float | None
    origin_norm: float | None

    @classmethod
    def of(cls, grid: Grid) -> Terrain | None:
        """That of a grid; None where no cell is finite or the centre's loss is not known."""
        finite, loss = grid.losses[np.isfinite(grid.losses)], grid.centre_loss
        if not finite.size or loss is None:
            return None
        relief = float(np.ptp(finite))
        resolvable = max(NOISE_MARGIN * (grid.info.noise.floor or 0.0), REAL_SHARE * relief)
        start = tuple(int(np.abs(axis).argmin()) for axis in grid.coordinates)
        return cls(
            loss,
            relief,
            resolvable,
            max(loss - float(finite.min()), 0.0),
            max(highest_on_the_way(grid.losses, start) - loss, 0.0),
            merge_tree(grid).num_minima(above=resolvable),
            grid.num_nonfinite,
            grid.losses.size,
            grid.losses.ndim,
            grid.info.extra.get("gradient_norm"),
            grid.info.directions.origin_norm,
        )

    @property
    def slope(self) -> float | None:
        """The share of the loss that a step of 1 % of ‖θ‖ down the gradient would save, to first order."""
        if self.gradient_norm is None or self.origin_norm is None or not self.loss > 0:
            return None
        return self.gradient_norm * 0.01 * self.origin_norm / self.loss


def highest_on_the_way(losses: np.ndarray, start: tuple[int, ...]) -> float:
    """The highest loss on the way from cell `start` to the lowest cell that climbs least; infinite where there is none."""
    goal = np.unravel_index(np.nanargmin(np.where(np.isfinite(losses), losses, np.inf)), losses.shape)
    steps = [step for step in itertools.product((-1, 0, 1), repeat=losses.ndim) if any(step)]
    heap, seen = [(float(losses[start]), start)], {start}
    while heap:
        height, cell = heapq.heappop(heap)
        if cell == tuple(int(at) for at in goal):
            return height
        for step in steps:
            beside = tuple(at + by for at, by in zip(cell, step, strict=True))
            inside = all(0 <= at < side for at, side in zip(beside, losses.shape, strict=True))
            if inside and beside not in seen and np.isfinite(losses[beside]):
                seen.add(beside)
                heapq.heappush(heap, (max(height, float(losses[beside])), beside))
    return float("inf")


def rise_nearby(grid: Grid) -> float | None:
    """The median rise of the loss a tenth of each filter's norm away, at ±0.1 along each axis, the others at their middle.

    None where the directions have other norms, where the grid does not reach that far, or the centre's loss is not known.
    """
    loss, reach = grid.centre_loss, min(axis.max() for axis in grid.coordinates)
    if loss is None or grid.info.directions.normalization != "filter" or reach < FILTER_RANGE * (1 - 1e-9):
        return None
    middle = [int(np.abs(axis).argmin()) for axis in grid.coordinates]
    found = []
    for at, axis in enumerate(grid.coordinates):
        for place in (-FILTER_RANGE, FILTER_RANGE):
            cell = list(middle)
            cell[at] = int(np.abs(axis - place).argmin())
            found.append(grid.losses[tuple(cell)])
    return float(np.median(np.where(np.isfinite(found), found, np.inf))) - loss
