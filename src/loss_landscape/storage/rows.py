"""Results as rows of the database's tables, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from loss_landscape.results.estimate import Estimate
from loss_landscape.results.grid import Grid
from loss_landscape.results.hessian_metrics import HessianMetrics
from loss_landscape.results.info import DirectionInfo, GridInfo
from loss_landscape.results.trajectory import PathPoint, Trajectory
from loss_landscape.storage import strict_json

Column = Sequence[Any]
Row = tuple[Any, ...]

RECORDED = ("train_loss", "val_loss", "learning_rate")
PATH_NUMBERS = ("residual", "loss", "plane_loss", *RECORDED)


def point_columns(surface_id: int, grid: Grid) -> list[Column]:
    """The columns of `points`: a row for each cell, with the status done, not finite or predicted."""
    size, dim = grid.losses.size, grid.losses.ndim
    indices = np.indices(grid.losses.shape).reshape(dim, -1)
    places = [axis[index] for axis, index in zip(grid.coordinates, indices, strict=True)]
    found = np.where(np.isfinite(grid.losses), "done", "not finite")
    status = np.where(grid.evaluated, found, "predicted").reshape(-1)
    unused: list[Column] = [[None] * size] * (3 - dim)
    columns = [*map(np.ndarray.tolist, indices), *unused, *map(np.ndarray.tolist, places), *unused]
    return [[surface_id] * size, *columns, grid.losses.reshape(-1).tolist(), status.tolist()]


def grid_from(columns: dict[str, np.ndarray], meta: dict[str, Any]) -> Grid:
    """The grid of a surface's `loss` and `evaluated`, in the order of its cells, and its meta."""
    coordinates = tuple(np.array(axis, dtype=np.float64) for axis in meta["coordinates"])
    shape = tuple(len(axis) for axis in coordinates)
    return Grid(columns["loss"].reshape(shape), coordinates, GridInfo.from_json(meta), columns["evaluated"].reshape(shape))


def path_columns(number: int, trajectory: Trajectory) -> list[Column]:
    """The columns of `trajectory_points`."""
    rows = []
    for position, point in enumerate(trajectory.points):
        place = [*point.coordinates, None, None][:3]
        rows.append([number, position, point.epoch, *place, *(getattr(point, name) for name in PATH_NUMBERS)])
    return list(zip(*rows, strict=True))


def trajectory_from(facts: Sequence[str], rows: Sequence[Row]) -> Trajectory:
    """The path of `facts` (name, mode, plane, info) and rows of (epoch, alpha, beta, gamma, the numbers of `PATH_NUMBERS`)."""
    name, mode, plane, info = facts
    points = []
    for epoch, alpha, beta, gamma, *numbers in rows:
        place = tuple(one for one in (alpha, beta, gamma) if one is not None)
        points.append(PathPoint(epoch, place, **dict(zip(PATH_NUMBERS, numbers, strict=True))))
    return Trajectory(tuple(points), mode, DirectionInfo.from_json(strict_json.loads(info)), name, plane)


def spectrum_columns(number: int, metrics: HessianMetrics, now: str) -> list[Column]:
    """The columns of `spectra`: a row for each eigenvalue with its residual, and one for the trace with its error."""
    facts = {"size": metrics.size, "num_top": metrics.num_top, "notes": list(metrics.notes), "trace_note": metrics.trace.note}
    info, trace = strict_json.dumps(facts), metrics.trace
    pairs = zip(metrics.eigenvalues, metrics.residuals, metrics.converged, strict=True)
    rows: list[Row] = [
        (number, metrics.epoch, "eigenvalue", rank, value, None, residual, converged, None, info, now)
        for rank, (value, residual, converged) in enumerate(pairs)
    ]
    error, count = trace.standard_error, trace.num_samples
    rows.append((number, metrics.epoch, "trace", 0, trace.value, error, None, None, count, info, now))
    return list(zip(*rows, strict=True))


def hessian_from(rows: Sequence[Row]) -> HessianMetrics:
    """The metrics of the rows (epoch, value, standard_error, residual, converged, num_samples, info), the trace's last."""
    *pairs, (epoch, value, error, _, _, count, info) = rows
    facts = strict_json.loads(info)
    values, residuals, converged = (tuple(pair[at] for pair in pairs) for at in (1, 3, 4))
    return HessianMetrics(
        values,
        residuals,
        converged,
        facts["num_top"],
        Estimate(value, error, count, facts["trace_note"]),
        facts["size"],
        epoch,
        tuple(facts["notes"]),
    )
