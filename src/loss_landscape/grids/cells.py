"""The cells of a grid, and how one of them is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from loss_landscape.grids.cell_order import CellOrder
from loss_landscape.surface.plane import Plane
from loss_landscape.surface.strategy import EvaluationStrategy


@dataclass(frozen=True, eq=False)
class GridCells:
    """The cells at `axes` of a plane, by their index in the grid's flattened array.

    `rho` is the length of an ascent step (None: the loss itself). `on_plane` turns coordinates along the axes [K, D] into the
    plane's own, where these are others, as along a curve.
    """

    plane: Plane
    axes: tuple[np.ndarray, ...]
    rho: float | None = None
    on_plane: Callable[[Tensor], Tensor] = lambda coordinates: coordinates

    @cached_property
    def order(self) -> CellOrder:
        """In which order the cells are evaluated."""
        return CellOrder(self.axes)

    @cached_property
    def coordinates(self) -> Tensor:
        """The coordinates of all cells, [cells, D] float64, the last axis running fastest."""
        return torch.cartesian_prod(*(torch.from_numpy(axis) for axis in self.axes)).reshape(-1, len(self.axes))

    @cached_property
    def centre(self) -> int | None:
        """The cell at the origin."""
        at_origin = torch.nonzero((self.coordinates == 0).all(dim=1))[:, 0].tolist()
        return at_origin[0] if at_origin else None

    @property
    def dtype(self) -> torch.dtype:
        """What they are evaluated in."""
        return self.plane.objective.dtype

    @property
    def device(self) -> torch.device:
        """Where they are evaluated."""
        return self.plane.objective.device

    def losses(self, cells: Sequence[int] | np.ndarray, strategy: EvaluationStrategy) -> np.ndarray:
        """The losses of these cells, [len(cells)] float64."""
        coordinates = self.on_plane(self.coordinates[torch.as_tensor(cells)])
        return self.plane.evaluate(coordinates, strategy, self.rho).cpu().numpy()

    @cached_property
    def corner_loss(self) -> float:
        """The loss at the last of the cells that a strategy is checked by, through the net itself."""
        corner = self.on_plane(self.coordinates[self.order.check_cells[-1:]])
        return self.plane.plain_losses(corner, self.rho).item()

    def in_float64(self) -> GridCells:
        """The same cells, evaluated in float64 by the plain loop alone."""
        return replace(self, plane=self.plane.in_dtype(torch.float64))
