"""What a picture says of a grid: its axes, its centre, and what must be known before it is believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from loss_landscape.results.grid import Grid
from loss_landscape.viewing.colour_scale import ColourScale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = Mapping[str, float]
"""A point of a plane by name: alpha and beta, and residual, how far from the plane it lies."""

NOISE_MARGIN = 10.0
AXIS_NAMES = {
    "random": ("random direction 1", "random direction 2", "random direction 3"),
    "hessian": ("Hessian eigenvector 1", "Hessian eigenvector 2"),
    "hessian_extremes": ("eigenvector of the largest λ", "eigenvector of the smallest λ"),
    "trajectory": ("principal direction 1", "principal direction 2", "principal direction 3"),
    "gradient": ("the gradient", "random direction 1", "random direction 2"),
    "adam": ("Adam's mean of the gradient", "Adam's mean of its square"),
    "three_points": ("the way to the second net", "the way to the third, at a right angle"),
    "difference": ("the way to the other net",),
}


def axis_label(grid: Grid, axis: int) -> str:
    """What an axis is, and how long one unit of it is beside ‖θ‖."""
    meta, letter = grid.meta, "αβγ"[axis]
    names = AXIS_NAMES.get(meta.get("kind", ""), ())
    name = names[axis] if axis < len(names) else f"direction {axis + 1}"
    facts = [f"λ = {meta['eigenvalues'][axis]:.3g}"] if meta.get("eigenvalues") else []
    if meta.get("origin_norm"):
        facts.append(f"one unit is {meta['direction_norms'][axis] / meta['origin_norm']:.3g} ‖θ‖")
    return f"{letter} along {name}\n({', '.join(facts)})" if facts else f"{letter} along {name}"


def label_axes(axes: Axes, grid: Grid) -> None:
    """Name both axes of a plane."""
    axes.set_xlabel(axis_label(grid, 0), fontsize=9)
    axes.set_ylabel(axis_label(grid, 1), fontsize=9)
    axes.tick_params(labelsize=8)


def value_name(grid: Grid) -> str:
    """What a grid holds: the loss, or that after an ascent."""
    radius = grid.meta.get("rho_absolute")
    return "loss" if radius is None else f"loss after an ascent of ρ = {radius:.3g}"


def centre_loss(grid: Grid) -> float | None:
    """The loss at the origin, if the grid knows it or has a cell there."""
    known = grid.meta.get("baseline_loss")
    cell = [np.flatnonzero(axis == 0) for axis in grid.coordinates]
    if known is None and all(len(found) for found in cell):
        known = grid.losses[tuple(found[0] for found in cell)]
    return None if known is None else float(known)


def centre_label(grid: Grid) -> str:
    """What a legend says of the origin."""
    loss = centre_loss(grid)
    return "centre" if loss is None else f"centre: {loss:.4g}"


def centre_notes(grid: Grid) -> list[str]:
    """The origin's loss, where it is known."""
    return [] if centre_loss(grid) is None else [centre_label(grid)]


def notes_on(grid: Grid, scale: ColourScale) -> list[str]:
    """What a reader must know of a grid before trusting its picture."""
    finite = grid.losses[np.isfinite(grid.losses)]
    missing, spread = grid.losses.size - finite.size, np.ptp(finite) if finite.size else np.inf
    noise = grid.meta.get("noise_floor")
    notes = [f"not finite: {missing} of {grid.losses.size} cells"] if missing else []
    notes += _notes_on_prediction(grid)
    if scale.clipped:
        notes.append(f"colours end at {scale.high:.3g}, the highest cell is {finite.max():.3g}")
    if spread == 0:
        notes.append("constant")
    elif noise is not None and spread <= NOISE_MARGIN * noise:
        notes.append(f"mostly rounding: the range {spread:.2g} is within ten times of the float noise {noise:.2g}")
    return notes


def _notes_on_prediction(grid: Grid) -> list[str]:
    """How much of a grid was evaluated, where some was predicted or was to be."""
    count, error = int(grid.evaluated.sum()), grid.meta.get("largest_held_out_error")
    if count == grid.losses.size:
        return ["every cell evaluated: none could be predicted within the tolerance"] if grid.meta.get("tolerance") else []
    checked = "" if error is None else f" (to {100 * error:.2g} % where checked)"
    return [f"{count} of {grid.losses.size} cells evaluated, the rest predicted{checked}"]


def notes_on_trajectory(grid: Grid, points: Sequence[Point]) -> list[str]:
    """How much of a trajectory the plane shows."""
    (left, right), (bottom, top) = ((axis.min(), axis.max()) for axis in grid.coordinates)
    outside = sum(not (left <= point["alpha"] <= right and bottom <= point["beta"] <= top) for point in points)
    notes = [f"{outside} of the path's {len(points)} points are outside"] if outside else []
    if grid.meta.get("explained_variance"):
        shares = " and ".join(f"{share:.1%}" for share in grid.meta["explained_variance"])
        notes.append(f"the axes hold {shares} of the path's variance")
    distances = [point["residual"] for point in points if "residual" in point]
    if distances and grid.meta.get("origin_norm"):
        notes.append(f"the path leaves the plane by up to {max(distances) / grid.meta['origin_norm']:.2g} ‖θ‖")
    return notes
