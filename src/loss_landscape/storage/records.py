"""What a storage holds, and a landscape file: typed, and without a database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from loss_landscape.results.grid import Grid
from loss_landscape.results.hessian_metrics import HessianMetrics
from loss_landscape.results.landscape import SHAPES
from loss_landscape.results.trajectory import Trajectory


@dataclass(frozen=True)
class Checkpoint:
    """A net's state on disk: its `file`, and what was recorded with it."""

    epoch: float
    file: Path
    train_loss: float | None = None
    val_loss: float | None = None
    learning_rate: float | None = None


@dataclass(frozen=True)
class SurfaceKey:
    """What a surface is before it is sampled: no other one has the same `identity`."""

    identity: str
    dim: int
    centre_hash: str
    seed: int | None = None


@dataclass(frozen=True)
class BegunSurface:
    """A surface that is being sampled: its id, and the file that keeps its finished cells."""

    surface_id: int
    partial_file: Path


@dataclass(frozen=True, eq=False)
class LandscapeRecord:
    """All that is told of one landscape: the last grid of each mode, paths on it, curvature, and facts about their making.

    `kept` are all grids by name, the oldest first, where a database has them; a file has the last of each mode alone.
    """

    grids: Mapping[str, Grid] = field(default_factory=dict)
    trajectories: tuple[Trajectory, ...] = ()
    hessians: tuple[HessianMetrics, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    kept: Mapping[str, Grid] = field(default_factory=dict)

    @property
    def landscapes(self) -> Mapping[str, Grid]:
        """Every grid that there is by its name, such as plane-2 of a database, or plane of a file."""
        return self.kept or {SHAPES[mode]: grid for mode, grid in self.grids.items()}

    @property
    def main_mode(self) -> str:
        """The mode of the grid that stands for the others: the plane, else the line, else the volume; ValueError without any."""
        for mode in ("2d", "1d", "3d"):
            if mode in self.grids:
                return mode
        raise ValueError("nothing was sampled, so there is no grid to show; call sample_landscape first")

    @property
    def main_grid(self) -> Grid:
        """The grid of that mode."""
        return self.grids[self.main_mode]

    def only(self, mode: str) -> LandscapeRecord:
        """The same with the grid of one mode alone; ValueError where there is none."""
        if mode not in self.grids:
            raise ValueError(f"there is no {mode} landscape here, only {', '.join(self.grids) or 'none at all'}")
        return replace(self, grids={mode: self.grids[mode]}, kept={})

    def paths_on(self, grid: Grid) -> list[Trajectory]:
        """The paths that lie on the plane of a grid: through the same net, along the same directions."""
        plane = grid.info.extra.get("plane")
        return [path for path in self.trajectories if plane and path.plane == plane]
