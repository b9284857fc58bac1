"""Checkpoints on a plane: where they are, how far from it, and their own losses beside those of the plane."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from loss_landscape.directions.points import point_in
from loss_landscape.explorer.user_loss import UserLoss
from loss_landscape.results.directions import Directions
from loss_landscape.results.trajectory import PathPoint
from loss_landscape.storage.records import Checkpoint
from loss_landscape.surface.surface import LossSurface


def projected(loss: UserLoss, surface: LossSurface, checkpoints: Sequence[Checkpoint], axes: Directions) -> list[PathPoint]:
    """Each checkpoint's place by least squares along the axes, exact where these are not orthogonal too."""
    basis = torch.stack([axis.double() for axis in axes])  # [D, P]
    places, points = [], []
    for checkpoint in checkpoints:
        step = point_in(surface, checkpoint.file).double() - surface.origin.double()
        place = torch.linalg.solve(basis @ basis.T, basis @ step)
        places.append(place)
        points.append(_point(loss, surface, checkpoint, place, float((step - place @ basis).norm())))
    losses = surface.plane(list(axes)).losses(torch.stack(places)).tolist()
    return [PathPoint(**{**vars(point), "plane_loss": value}) for point, value in zip(points, losses, strict=True)]


def _point(loss: UserLoss, surface: LossSurface, checkpoint: Checkpoint, place: Tensor, residual: float) -> PathPoint:
    own = _own_loss(loss, surface, checkpoint)
    recorded = (checkpoint.train_loss, checkpoint.val_loss, checkpoint.learning_rate)
    return PathPoint(checkpoint.epoch, tuple(place.tolist()), residual, own, float("nan"), *recorded)


def _own_loss(loss: UserLoss, surface: LossSurface, checkpoint: Checkpoint) -> float:
    """The loss of the checkpoint itself, by its own buffers: batch norm's statistics are those of its own time."""
    if not any(True for _ in loss.model.buffers()) and surface.size == sum(p.numel() for p in loss.model.parameters()):
        return float(surface.losses(points=point_in(surface, checkpoint.file)[None]))
    state = torch.load(checkpoint.file, map_location="cpu", weights_only=True)
    return loss.surface(state).loss()
