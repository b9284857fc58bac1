"""A grid whose cells are all filled, and how they were."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from loss_landscape.grids.cells import GridCells
from loss_landscape.objective.functional_net import undisturbed
from loss_landscape.results.info import LevelErrors, StrategyInfo
from loss_landscape.surface.slopes import slope_objection
from loss_landscape.surface.strategy import EvaluationStrategy


@dataclass(frozen=True, eq=False)
class FilledGrid:
    """The losses of all cells [cells], which of them were evaluated [cells] and not predicted, and the errors measured."""

    losses: np.ndarray
    evaluated: np.ndarray
    measured: Sequence[LevelErrors]

    @property
    def largest_held_out_error(self) -> float | None:
        """The error that the predicted cells are known by, where there are any."""
        return None if bool(self.evaluated.all()) else self.measured[-1].held_out


def with_centre(filled: FilledGrid, cells: GridCells, baseline: float, precision: str | None) -> tuple[np.ndarray, float | None]:
    """The losses with the surface's own at the origin, and how far the grid's value there was from it."""
    losses = filled.losses
    if cells.centre is None:
        return losses, None
    difference = float(losses[cells.centre]) - baseline
    if precision is None:  # else the centre would stand out from its neighbours by their rounding
        losses[cells.centre] = baseline
    return losses, difference


def strategy_info(cells: GridCells, strategy: EvaluationStrategy) -> StrategyInfo:
    """How the cells were evaluated, for the record."""
    return StrategyInfo(
        strategy=strategy.name,
        strategy_note="; ".join(filter(None, (strategy.note, cells.plane.objective.batch_norm_note))),
        chunk=strategy.chunk,
        compiled=strategy.compiled,
        precision=strategy.precision,
        dtype=str(cells.dtype).removeprefix("torch."),
        weighting=cells.plane.objective.batch_weights.rule,
        unmoved=cells.plane.objective.unmoved(cells.plane.layout.names),
        derivative_note="" if cells.rho is None else _slope_note(cells),
        without_slope=cells.plane.objective.used.without_slope,
        versions={"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__},
    )


def _slope_note(cells: GridCells) -> str:
    plane = cells.plane
    with undisturbed(cells.device):
        return slope_objection(plane.objective, plane.layout, plane.origin)
