"""What a grid's losses are worth: some of its cells beside the same cells in another precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

NUM_LOWEST = 3


def checked_cells(losses: np.ndarray, evaluated: np.ndarray, centre: int | None, num_random: int) -> dict[int, str]:
    """Cell → why it is checked: the centre, the lowest, and `num_random` others, of those that were evaluated."""
    candidates = np.nonzero(evaluated)[0]
    drawn = candidates[torch.randperm(len(candidates), generator=torch.Generator().manual_seed(0))[:num_random].numpy()]
    heights = np.where(np.isfinite(losses) & evaluated, losses, np.inf)
    lowest = np.argsort(heights, kind="stable")[:NUM_LOWEST]
    chosen = dict.fromkeys(drawn.tolist(), "random") | {int(cell): "lowest" for cell in lowest}
    return chosen | ({} if centre is None else {centre: "centre"})


def noise_table(
    why: Mapping[int, str], losses: np.ndarray, exact: Sequence[float], shape: Sequence[int], dtype: str
) -> dict[str, Any]:
    """A row for each checked cell, its loss beside the `exact` one of `dtype`; `noise_floor` is the largest absolute error."""
    rows = [
        _compared(cell, reason, float(losses[cell]), truth, shape, dtype)
        for (cell, reason), truth in zip(why.items(), exact, strict=True)
    ]
    known = [row["absolute_error"] for row in rows if np.isfinite(row["absolute_error"])]
    return {"noise_floor": max(known, default=None), "noise": rows}


def precision_error(losses: np.ndarray, own: np.ndarray) -> dict[str, Any]:
    """The largest errors of losses in lower precision beside the surface's own."""
    errors = np.abs(losses - own)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = errors / np.abs(own)
    return {"absolute": float(np.max(errors)), "relative": float(np.max(relative)), "num_cells": len(own)}


def _compared(cell: int, why: str, loss: float, truth: float, shape: Sequence[int], dtype: str) -> dict[str, Any]:
    error = abs(loss - truth)
    return {
        "cell": [int(index) for index in np.unravel_index(cell, shape)],
        "why": why,
        "loss": loss,
        dtype: truth,
        "absolute_error": error,
        "relative_error": error / abs(truth) if truth else error,
    }
