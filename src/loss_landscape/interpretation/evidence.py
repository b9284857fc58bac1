"""The numbers that hints rest on, gathered from a landscape record."""

from __future__ import annotations

from dataclasses import dataclass

from loss_landscape.interpretation.path_shape import PathShape
from loss_landscape.interpretation.terrain import Terrain, rise_nearby
from loss_landscape.results.hessian_metrics import HessianMetrics
from loss_landscape.storage.records import LandscapeRecord


@dataclass(frozen=True)
class Evidence:
    """What is known: the relief, the rise of the loss nearby, the training path, the curvature, and the last learning rate.

    Each is None where it was not measured.
    """

    terrain: Terrain | None = None
    rise: float | None = None
    path: PathShape | None = None
    curvature: HessianMetrics | None = None
    learning_rate: float | None = None

    @classmethod
    def of(cls, record: LandscapeRecord) -> Evidence:
        """That of a record: its main grid, its last path, its last curvature."""
        path = record.trajectories[-1] if record.trajectories else None
        rates = [point.learning_rate for point in path.points if point.learning_rate] if path is not None else []
        return cls(
            Terrain.of(record.main_grid) if record.grids else None,
            next((rise for rise in map(rise_nearby, record.grids.values()) if rise is not None), None),
            None if path is None else PathShape.of(path),
            record.hessians[-1] if record.hessians else None,
            rates[-1] if rates else None,
        )

    @property
    def threshold(self) -> float | None:
        """2/η, the curvature above which plain gradient descent overshoots."""
        return 2 / self.learning_rate if self.learning_rate else None
