"""What a picture says of a grid: its axes, its centre, and what must be known before it is believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from loss_landscape.results.grid import Grid
from loss_landscape.results.info import NOISE_MARGIN, PlanePoint
from loss_landscape.viewing.colour_scale import ColourScale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

Point = Mapping[str, float]
"""A point of a plane by name: alpha and beta, and residual, how far from the plane it lies."""

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
    info = grid.info.directions
    names = AXIS_NAMES.get(info.kind, ())
    name = f"{'αβγ'[axis]} along {names[axis] if axis < len(names) else f'direction {axis + 1}'}"
    facts = [f"λ = {info.eigenvalues[axis]:.3g}"] if info.eigenvalues else []
    facts += [f"one unit is {info.relative_norms[axis]:.3g} ‖θ‖"] if info.relative_norms else []
    return f"{name}\n({', '.join(facts)})" if facts else name


def label_axes(axes: Axes, grid: Grid) -> None:
    """Name both axes of a plane, whose numbers are short however short its span is."""
    axes.set_xlabel(axis_label(grid, 0), fontsize=9)
    axes.set_ylabel(axis_label(grid, 1), fontsize=9)
    axes.tick_params(labelsize=8)
    for axis, coordinates in ((axes.xaxis, grid.coordinates[0]), (axes.yaxis, grid.coordinates[1])):
        write_powers(axis, coordinates)


def write_powers(axis: Axis, places: np.ndarray) -> None:
    """Let an axis of numbers that are far from 1 say 2e−5, where 0.00002 runs into its neighbour, and 1e−5 above into a note."""
    from matplotlib.ticker import MaxNLocator

    largest = np.abs(places).max(initial=0.0)
    if not 1e-2 <= largest < 1e4:
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))  # as matplotlib's own, with fewer ticks
        axis.set_major_formatter(lambda place, _: f"{place:.3g}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−"))


def value_name(grid: Grid) -> str:
    """What a grid holds: the loss, or that after an ascent."""
    return "loss" if grid.info.rho is None else f"loss after an ascent of ρ = {grid.info.rho:.3g}"


def centre_label(grid: Grid) -> str:
    """What a legend says of the origin."""
    return "centre" if grid.centre_loss is None else f"centre: {grid.centre_loss:.4g}"


def centre_notes(grid: Grid) -> list[str]:
    """The origin's loss, where it is known."""
    return [] if grid.centre_loss is None else [centre_label(grid)]


def notes_on(grid: Grid, scale: ColourScale) -> list[str]:
    """What a reader must know of a grid before trusting its picture."""
    finite = grid.losses[np.isfinite(grid.losses)]
    spread, noise = np.ptp(finite) if finite.size else np.inf, grid.info.noise.floor
    notes = [f"not finite: {grid.num_nonfinite} of {grid.losses.size} cells"] if grid.num_nonfinite else []
    notes += _notes_on_prediction(grid)
    if scale.clipped:
        notes.append(f"colours end at {scale.high:.3g}, the highest cell is {finite.max():.3g}")
    if spread == 0:
        notes.append("constant")
    elif noise is not None and spread < NOISE_MARGIN * noise:
        notes.append(f"mostly rounding: the range {spread:.2g} is within {NOISE_MARGIN:g} times of the float noise {noise:.2g}")
    return notes


def _notes_on_prediction(grid: Grid) -> list[str]:
    """How much of a grid was evaluated, where some was predicted or was to be."""
    error = grid.info.largest_held_out_error
    if grid.num_evaluated == grid.losses.size:
        return ["every cell evaluated: none could be predicted within the tolerance"] if grid.info.tolerance else []
    checked = "" if error is None else f" (to {100 * error:.2g} % where checked)"
    return [f"{grid.num_evaluated} of {grid.losses.size} cells evaluated, the rest predicted{checked}"]


def notes_on_trajectory(grid: Grid, points: Sequence[Point]) -> list[str]:
    """How much of a trajectory the plane shows."""
    info, ((left, right), (bottom, top)) = grid.info.directions, grid.span
    outside = sum(not (left <= point["alpha"] <= right and bottom <= point["beta"] <= top) for point in points)
    notes = [f"{outside} of the path's {len(points)} points are outside"] if outside else []
    if info.explained_variance:
        shares = " and ".join(f"{share:.1%}" for share in info.explained_variance)
        notes.append(f"the axes hold {shares} of the path's variance")
    distances = [point["residual"] for point in points if "residual" in point]
    if distances and info.origin_norm:
        notes.append(f"the path leaves the plane by up to {max(distances) / info.origin_norm:.2g} ‖θ‖")
    return notes


def points_of(points: Sequence[PlanePoint] | None) -> list[Point]:
    """Points by name, as pictures take them."""
    return [point.to_json() for point in points or ()]
