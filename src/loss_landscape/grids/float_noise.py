"""What a grid's losses are worth: some of its cells beside the same cells in another precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from loss_landscape.grids.cells import GridCells
from loss_landscape.results.info import CheckedCell, FloatNoise, PrecisionError
from loss_landscape.surface.strategy import EAGER, EvaluationStrategy

NUM_LOWEST = 3
NUM_RANDOM = 4
CELLS_A_RANDOM = 800  # of a dense net's grid; a cell in float64 takes as long as ten of these
NUM_RANDOM_IN_LOWER_PRECISION = 4  # its error is no matter of luck


def float_noise(
    cells: GridCells, losses: np.ndarray, evaluated: np.ndarray, *, strategy: EvaluationStrategy, num_random: int | None
) -> FloatNoise:
    """Some of the `losses` [cells] beside the same in float64, or in the surface's dtype where the net was in a lower precision.

    Of those that were `evaluated` [cells]; `num_random` 0 leaves the check against float64 out. None goes by what such a cell
    takes beside one of the grid's; see `_counts`.
    """
    if strategy.precision is not None:
        why = checked_cells(losses, evaluated, cells.centre, NUM_RANDOM_IN_LOWER_PRECISION)
        own = cells.losses(list(why), replace(strategy, precision=None, compiled=False))
        dtype = str(cells.dtype).removeprefix("torch.")
        return replace(
            compared(why, losses, own, cells.order.shape, dtype), precision_error=_precision_error(losses[list(why)], own)
        )
    if num_random == 0 or cells.dtype == torch.float64 or cells.device.type == "mps":
        return FloatNoise()
    num_random, num_lowest = _counts(cells, int(evaluated.sum()), num_random)
    why = checked_cells(losses, evaluated, cells.centre, num_random, num_lowest=num_lowest)
    try:
        exact = cells.in_float64().losses(list(why), EAGER)
    except RuntimeError as error:  # a net that makes float32 tensors of its own
        return FloatNoise(note=(str(error).strip() or type(error).__name__).splitlines()[0])
    return compared(why, losses, exact, cells.order.shape, "float64")


def _counts(cells: GridCells, num_evaluated: int, num_random: int | None) -> tuple[int, int]:
    """How many random cells and how many of the lowest are computed in float64, where `num_random` does not say it.

    A dense net's cell in float64 takes as long as ten of its vectorized ones: one in CELLS_A_RANDOM is drawn, and one more of the
    lowest are taken. Of a convnet on a CPU, whose float64 convolutions are slow, the lowest alone, where rounding is the largest
    part of a loss.
    """
    if num_random is not None:
        return num_random, NUM_LOWEST
    if cells.plane.layout.has_convolution and cells.device.type == "cpu":
        return 0, 1
    drawn = max(1, num_evaluated // CELLS_A_RANDOM)
    return min(NUM_RANDOM, drawn), min(NUM_LOWEST, 1 + drawn)


def checked_cells(
    losses: np.ndarray, evaluated: np.ndarray, centre: int | None, num_random: int, *, num_lowest: int = NUM_LOWEST
) -> dict[int, str]:
    """Cell → why it is checked: the centre, the `num_lowest` lowest, and `num_random` others, of those that were evaluated."""
    candidates = np.nonzero(evaluated)[0]
    drawn = candidates[torch.randperm(len(candidates), generator=torch.Generator().manual_seed(0))[:num_random].numpy()]
    heights = np.where(np.isfinite(losses) & evaluated, losses, np.inf)
    lowest = np.argsort(heights, kind="stable")[:num_lowest]
    chosen = dict.fromkeys(drawn.tolist(), "random") | {int(cell): "lowest" for cell in lowest}
    return chosen | ({} if centre is None else {centre: "centre"})


def compared(why: Mapping[int, str], losses: np.ndarray, exact: np.ndarray, shape: Sequence[int], dtype: str) -> FloatNoise:
    """Each checked cell's loss beside the `exact` one of `dtype`; `floor` is the largest absolute error."""
    checked = tuple(
        _checked(cell, reason, float(losses[cell]), truth, shape)
        for (cell, reason), truth in zip(why.items(), exact.tolist(), strict=True)
    )
    errors = [cell.absolute_error for cell in checked if np.isfinite(cell.absolute_error)]
    return FloatNoise(max(errors, default=None), checked, dtype)


def _checked(cell: int, why: str, loss: float, truth: float, shape: Sequence[int]) -> CheckedCell:
    error, index = abs(loss - truth), tuple(int(i) for i in np.unravel_index(cell, shape))
    return CheckedCell(index, why, loss, truth, error, error / abs(truth) if truth else error)


def _precision_error(losses: np.ndarray, own: np.ndarray) -> PrecisionError:
    errors = np.abs(losses - own)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = errors / np.abs(own)
    return PrecisionError(float(np.max(errors)), float(np.max(relative)), len(own))
