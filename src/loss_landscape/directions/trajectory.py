"""The plane that a training trajectory stays closest to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from loss_landscape.directions.custom import with_info
from loss_landscape.directions.directions import check_count
from loss_landscape.directions.points import PointLike, not_moved, parameters_at
from loss_landscape.results.directions import Directions
from loss_landscape.results.info import DirectionInfo, PlanePoint
from loss_landscape.surface.surface import LossSurface

SLICE = 1 << 20  # entries of a parameter read at a time: checkpoints stay on disk


def trajectory_directions(
    surface: LossSurface,
    checkpoints: Sequence[PointLike],
    *,
    count: int = 2,
    steps: Sequence[float] | None = None,
    scale: Literal["fit", "unit"] = "fit",
    centre: Literal["origin", "mean"] = "origin",
) -> Directions:
    """The principal axes of a trajectory's checkpoints about the origin, which should be the last of them (Li et al. 2018).

    `checkpoints` of the net of `surface`, first to last, are each as `point_in` takes them, `count` axes 1 to 3, `steps` the
    training step of each (0, 1, … unless given). With `scale="fit"` all axes have the same length, such that the farthest
    checkpoint is .9 along one; with "unit", length 1. `centre="mean"` takes the axes about the checkpoints' mean, as Li et al.'s
    code does; the plane goes through the origin all the same. `info.explained_variance` has the share of each axis in
    Σ‖θₜ − centre‖², `info.trajectory` each checkpoint's place and `residual`, its distance from the plane. The axes come from the
    Gram matrix, in float64, one parameter at a time. Raises ValueError for fewer than 3 checkpoints, or where they span fewer
    axes.

    >>> path = [torch.tensor([3.0, 1.0]), torch.tensor([2.0, 1.0]), surface.origin]
    >>> axes = trajectory_directions(surface, path, count=1)
    >>> [round(abs(point.coordinates[0]), 2) for point in axes.info.trajectory]
    [0.9, 0.45, 0.0]
    """
    check_count(count)
    if centre not in ("origin", "mean"):
        raise ValueError(f"centre must be 'origin' or 'mean', got {centre!r}")
    if scale not in ("fit", "unit"):
        raise ValueError(f"scale must be 'fit' or 'unit', got {scale!r}")
    if isinstance(checkpoints, str | Path):
        raise TypeError(f"expected a list of checkpoints, got {str(checkpoints)!r}; Path(folder).glob('*.pt') finds files")
    if len(checkpoints) < 3:
        raise ValueError(f"a trajectory needs 3 checkpoints or more, got {len(checkpoints)}")
    if steps is not None and len(steps) != len(checkpoints):
        raise ValueError(f"expected a step for each of the {len(checkpoints)} checkpoints, got {len(steps)}")
    states = [parameters_at(surface, checkpoint) for checkpoint in checkpoints]
    gram = _gram(surface, states)  # [T, T]
    if not bool(torch.isfinite(gram).all()):
        raise ValueError("a checkpoint, or the net itself, has parameters that are not finite, so the trajectory has no axes")
    centring = torch.eye(len(states), dtype=gram.dtype) - (1 / len(states) if centre == "mean" else 0.0)
    centred = centring @ gram @ centring
    values, vectors = (part.flip(-1)[..., :count] for part in torch.linalg.eigh(centred))
    # the Gram matrix squares the condition number: below this an axis would be rounding
    if float(values[-1]) <= 1e-10 * float(values[0]):
        raise ValueError(f"the checkpoints span fewer than {count} axes: Σ‖θₜ − {centre}‖² along them is {values.tolist()}")
    mixtures = vectors / values.sqrt()  # [T, count]: a unit axis is a sum of θₜ − θ with these weights
    coordinates = gram @ mixtures  # [T, count], along unit axes
    stretch = float(coordinates.abs().max()) / 0.9 if scale == "fit" else 1.0
    axes = _axes(surface, states, mixtures * stretch)
    residuals = (gram.diagonal() - coordinates.square().sum(dim=1)).clamp_min(0).sqrt()
    trajectory = _points(coordinates / stretch, residuals, steps or range(len(states)))
    shares = tuple((values / centred.trace()).tolist())
    info = DirectionInfo("trajectory", trajectory=trajectory, centred_on=centre, explained_variance=shares)
    return with_info(surface, axes, replace(info, not_moved=not_moved(surface, *checkpoints)))


def _points(coordinates: Tensor, residuals: Tensor, steps: Sequence[float]) -> tuple[PlanePoint, ...]:
    return tuple(
        PlanePoint(tuple(place), step, residual)
        for step, place, residual in zip(steps, coordinates.tolist(), residuals.tolist(), strict=True)
    )


def _blocks(surface: LossSurface, states: Sequence[Mapping[str, Tensor]]) -> Any:
    """[T, n] of differences from the origin, float64 on the surface's device, slice by slice, in the layout's order."""
    for name, own in surface.layout.unflatten(surface.origin).items():
        flat = [state[name].reshape(-1) for state in states]
        for first in range(0, own.numel(), SLICE):
            part = slice(first, first + SLICE)
            here = own.reshape(-1)[part].double()
            yield torch.stack([tensor[part].to(here) - here for tensor in flat])


def _gram(surface: LossSurface, states: Sequence[Mapping[str, Tensor]]) -> Tensor:
    return sum(block @ block.T for block in _blocks(surface, states)).cpu()


def _axes(surface: LossSurface, states: Sequence[Mapping[str, Tensor]], mixtures: Tensor) -> list[Tensor]:
    mixtures = mixtures.to(surface.device)
    parts = [mixtures.T @ block for block in _blocks(surface, states)]
    return list(torch.cat(parts, dim=1).to(surface.origin))
