"""Predicting a grid's cells from those of a coarser level, and measuring how far off that is."""

from __future__ import annotations

import numpy as np

from loss_landscape.grids.cell_order import CellOrder
from loss_landscape.results.info import LevelErrors

NUM_HELD_OUT = 64


def level_errors(order: CellOrder, losses: np.ndarray, known: np.ndarray, level: int) -> tuple[LevelErrors, np.ndarray]:
    """The errors that a level (1 or finer) shows, and all cells [cells] as predicted from it.

    `losses` [cells] hold at least the level's and some of the next one's, where `known` [cells] is True.
    """
    before, after = (predicted(order, losses, lower) for lower in (level - 1, level))
    held_out = known & (order.ranks > level)
    new = _largest_error(before, losses, order.ranks == level)
    errors = LevelErrors(len(order.levels[level][0]), new, _largest_error(after, losses, held_out), int(held_out.sum()))
    return errors, after


def predicted(order: CellOrder, losses: np.ndarray, level: int) -> np.ndarray:
    """All cells [cells], from a level's losses by cubic splines along each axis, of their logarithm where all are positive."""
    from scipy.interpolate import CubicSpline  # half a second that a grid without tolerance need not wait

    places = order.levels[level]
    values = losses.reshape(order.shape)[np.ix_(*places)]
    positive = bool((values > 0).all())
    values = np.log(values) if positive else values
    for dimension, (axis, at) in enumerate(zip(order.axes, places, strict=True)):
        values = CubicSpline(axis[at], values, axis=dimension)(axis)
    return (np.exp(values) if positive else values).reshape(-1)


def _largest_error(guesses: np.ndarray, losses: np.ndarray, where: np.ndarray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):  # a loss of 0 has no relative error: inf, or NaN
        return float(np.max(np.abs(guesses - losses)[where] / np.abs(losses[where]), initial=0.0))


def check_tolerance(tolerance: float | None, num_axes: int) -> None:
    """ValueError unless `tolerance` is None, or between 0 and 1 and for a line or a plane."""
    if tolerance is None:
        return
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be between 0 and 1, or None, which evaluates every cell, got {tolerance!r}")
    if num_axes > 2:
        raise ValueError("tolerance is for lines and planes, got a volume; give tolerance=None, which evaluates every cell")
