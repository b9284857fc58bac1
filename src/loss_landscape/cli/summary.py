"""A landscape record in a few lines of text, and two of them side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from loss_landscape.interpretation.hints import QUESTIONS, ROWS, Hint
from loss_landscape.results.grid import Grid
from loss_landscape.results.hessian_metrics import HessianMetrics
from loss_landscape.results.landscape import SHAPES, Landscape
from loss_landscape.results.trajectory import Trajectory
from loss_landscape.storage.records import LandscapeRecord
from loss_landscape.topology import merge_tree

SETTINGS = (
    "model",
    "loss",
    "num_parameters",
    "num_batches",
    "model_mode",
    "regularizer_weight",
    "seed",
    "range_scale",
)
"""What two landscapes must share to be compared, as their extra facts are called."""


def summary(record: LandscapeRecord) -> list[str]:
    """What was sampled, and what must be known of it."""
    lines = [line for mode, grid in record.grids.items() for line in _of_grid(SHAPES[mode], grid)]
    lines += [line for path in record.trajectories for line in _of_path(path)]
    lines += [line for metrics in record.hessians for line in _of_curvature(metrics)]
    return lines or ["nothing was sampled yet"]


def explanation(hints: Sequence[Hint], landscapes: Mapping[str, Grid]) -> list[str]:
    """Which landscapes were judged, and the answers question by question, each with its evidence and what that is of.

    Where an answer is not no, the caveat and what would settle it follow.
    """
    lines = [f"{name}: {_seen(grid)}" for name, grid in landscapes.items()] or ["no landscape was sampled yet"]
    for question in QUESTIONS:
        lines += ["", question]
        for row in (one for one in ROWS if one.question == question):
            lines += _of_row([hint for hint in hints if hint.row is row])
    return lines


def _of_row(hints: Sequence[Hint]) -> list[str]:
    row, answers = hints[0].row, {hint.answer for hint in hints}
    told = [f"  {hint.answer:<12} {', '.join(filter(None, (row.sight, hint.source)))}: {hint.evidence}" for hint in hints]
    meaning = [f"it may mean: {row.meaning}; one may: {row.action}"] if "yes" in answers else []
    caveat = [f"but: {row.caveat}", f"to settle it: {row.settled_by}"] if answers != {"no"} else []
    return [*told, *(f"               {line}" for line in (*meaning, *caveat))]


def comparison(names: Sequence[str], records: Sequence[LandscapeRecord]) -> list[str]:
    """Two records' numbers side by side, and first what they don't share."""
    grids = [record.main_grid for record in records]
    differing = [
        f"they differ in {setting}: {values[0]} and {values[1]}"
        for setting in SETTINGS
        if len(set(map(str, values := [_setting(grid, setting) for grid in grids]))) > 1
    ]
    if _setting(grids[0], "directions") != _setting(grids[1], "directions"):
        differing.append("they are seen from other angles: sample one along the other's get_directions() to compare their shapes")
    if grids[0].losses.shape != grids[1].losses.shape:
        differing.append(f"they differ in grid_size: {_sides(grids[0])} and {_sides(grids[1])}")
    rows = [("", *names), *zip(*([(label, value) for label, value in _numbers(record)] for record in records), strict=True)]
    table = [rows[0], *((one[0], one[1], other[1]) for one, other in rows[1:])]
    widths = [max(len(row[at]) for row in table) for at in range(3)]
    return [
        *differing,
        *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table),
    ]


def _setting(grid: Grid, name: str) -> object:
    return grid.info.extra.get(name)


def _numbers(record: LandscapeRecord) -> Iterable[tuple[str, str]]:
    grid = record.main_grid
    finite = grid.losses[np.isfinite(grid.losses)]
    metrics = record.hessians[-1] if record.hessians else None
    yield "loss at the centre", _told(grid.centre_loss)
    yield "lowest loss", _told(float(finite.min()) if finite.size else None)
    yield "highest loss", _told(float(finite.max()) if finite.size else None)
    yield "minima", str(len(merge_tree(grid).births))
    yield "not finite", str(grid.num_nonfinite)
    yield "λ_max", _told(None if metrics is None else metrics.max_eigenvalue)
    error = "" if metrics is None else f" ± {metrics.trace.standard_error:.2g}"
    yield "trace", f"{_told(None if metrics is None else metrics.trace.value)}{error}"


def _of_grid(name: str, grid: Grid) -> list[str]:
    finite = grid.losses[np.isfinite(grid.losses)]
    lines = [f"{name}: {_seen(grid)}"]
    lines.append(f"  loss at the centre {_told(grid.centre_loss)}")
    if finite.size:
        lines.append(f"  losses {finite.min():.6g} to {finite.max():.6g}, mean {finite.mean():.6g}")
    if grid.num_nonfinite:
        lines.append(f"  {grid.num_nonfinite} of {grid.losses.size} cells are not finite")
    if grid.info.noise.floor is not None:
        lines.append(f"  float noise {grid.info.noise.floor:.2g}")
    return [*lines, *(f"  note: {note}" for note in Landscape(grid).notes)]


def _seen(grid: Grid) -> str:
    """How many cells it has, how far they reach, and along what."""
    directions = grid.info.directions
    norm = "" if directions.normalization == "none" else f", normalised by {directions.normalization}"
    return f"{_sides(grid)} cells, ±{Landscape(grid).range_scale:.3g} along {directions.kind} directions{norm}"


def _of_path(path: Trajectory) -> list[str]:
    first, last = path.points[0], path.points[-1]
    lines = [f"{path.name}: {len(path.points)} checkpoints, epochs {first.epoch:g} to {last.epoch:g}, on a {path.mode} plane"]
    own = f"{_told(first.loss)} to {_told(last.loss)}"
    lines.append(f"  its own loss {own}; the plane's {_told(first.plane_loss)} to {_told(last.plane_loss)}")
    lines.append(
        f"  at most {max(path.residuals):.3g} from the plane{_relative(max(path.residuals), path.directions.origin_norm)}"
    )
    if path.directions.explained_variance:
        lines.append(
            f"  the axes hold {' and '.join(f'{share:.1%}' for share in path.directions.explained_variance)} of its variance"
        )
    return lines


def _of_curvature(metrics: HessianMetrics) -> list[str]:
    pairs = list(zip(metrics.eigenvalues, metrics.converged, strict=True))
    top = ", ".join(f"{value:.4g}{'' if good else ' (not converged)'}" for value, good in pairs[: metrics.num_top])
    lowest = "" if metrics.min_eigenvalue is None else f"; the smallest {metrics.min_eigenvalue:.4g}"
    trace = f"{metrics.trace.value:.4g} ± {metrics.trace.standard_error:.2g} ({metrics.trace.num_samples} samples)"
    return [f"curvature at epoch {metrics.epoch:g}: largest eigenvalues {top}{lowest}", f"  trace {trace}"]


def _relative(distance: float, norm: float | None) -> str:
    return f", {distance / norm:.2g} ‖θ‖" if norm else ""


def _sides(grid: Grid) -> str:
    return "×".join(map(str, grid.resolution))


def _told(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:.6g}" if math.isfinite(value) else str(value)
