"""A training path on a plane, with what the plane can't show of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loss_landscape.results.documented import Documented
from loss_landscape.results.info import DirectionInfo

COORDINATE_KEYS = ("traj_1", "traj_2", "traj_3")


@dataclass(frozen=True)
class PathPoint:
    """A checkpoint on a plane.

    `coordinates` are those of its projection, `residual` its distance from the plane, `loss` its own loss, `plane_loss` that of
    its projection. `train_loss`, `val_loss` and `learning_rate` are what was recorded with it, None where nothing was.
    """

    epoch: float
    coordinates: tuple[float, ...]
    residual: float
    loss: float
    plane_loss: float
    train_loss: float | None = None
    val_loss: float | None = None
    learning_rate: float | None = None

    @classmethod
    def from_json(cls, entries: Mapping[str, Any]) -> PathPoint:
        """The point whose fields these are."""
        return cls(**{**entries, "coordinates": tuple(entries["coordinates"])})


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory(Documented):
    """Checkpoints on a plane, first to last, also by the keys traj_1, traj_2, traj_3, epochs, losses, val_losses and more.

    `points` are these, each with its own loss beside the plane's. `mode` is "pca" where the plane is the path's own, "fixed"
    where it was given. `directions` describes the axes, in units of which the coordinates are. `name` tells several paths on one
    plane apart. `plane` is the fingerprint of the plane, the same as that of a landscape on it.

    >>> writer = LossLandscapeWriter("runs/path")
    >>> for epoch in range(3):
    ...     _ = writer.record_checkpoint(model, epoch)
    ...     model.weight.data -= torch.tensor([[0.5, 0.1 * epoch]])
    >>> writer.build_trajectory(model, batches, nn.MSELoss())
    Trajectory(trajectory, 3 checkpoints, pca, loss 2.5 → 0.405)
    >>> writer.close()
    """

    points: tuple[PathPoint, ...]
    mode: str
    directions: DirectionInfo = DirectionInfo()
    name: str = "trajectory"
    plane: str = ""

    @property
    def coordinates(self) -> np.ndarray:
        """Where each checkpoint is, [T, D]."""
        return np.array([point.coordinates for point in self.points])

    @property
    def losses(self) -> list[float]:
        """The loss of each checkpoint itself."""
        return [point.loss for point in self.points]

    @property
    def plane_losses(self) -> list[float]:
        """The loss of each checkpoint's projection on the plane."""
        return [point.plane_loss for point in self.points]

    @property
    def residuals(self) -> list[float]:
        """How far each checkpoint is from the plane."""
        return [point.residual for point in self.points]

    def documented(self) -> dict[str, Any]:
        """The path as lists; traj_3 is None on a plane."""
        columns = list(self.coordinates.T)
        return {
            **{key: columns[axis] if axis < len(columns) else None for axis, key in enumerate(COORDINATE_KEYS)},
            "epochs": [point.epoch for point in self.points],
            "losses": self.losses,
            "val_losses": [point.val_loss for point in self.points],
            "train_losses": [point.train_loss for point in self.points],
            "learning_rates": [point.learning_rate for point in self.points],
            "plane_losses": self.plane_losses,
            "residuals": self.residuals,
            "explained_variance": _listed(self.directions.explained_variance),
            "mode": self.mode,
            "name": self.name,
        }

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold, but for numbers that are not finite."""
        points = [{**asdict(point), "coordinates": list(point.coordinates)} for point in self.points]
        own = {"name": self.name, "mode": self.mode, "plane": self.plane}
        return {**own, "directions": self.directions.to_json(), "points": points}

    @classmethod
    def from_json(cls, entries: Mapping[str, Any]) -> Trajectory:
        """The path of which `to_json` made these `entries`."""
        points = tuple(PathPoint.from_json(point) for point in entries["points"])
        directions = DirectionInfo.from_json(entries["directions"])
        return cls(points, entries["mode"], directions, entries["name"], entries["plane"])

    def __repr__(self) -> str:
        first, last = self.points[0].loss, self.points[-1].loss
        return f"Trajectory({self.name}, {len(self.points)} checkpoints, {self.mode}, loss {first:.4g} → {last:.4g})"


def _listed(shares: Sequence[float] | None) -> list[float] | None:
    return None if shares is None else list(shares)
