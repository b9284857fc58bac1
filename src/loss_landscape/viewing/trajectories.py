"""The picture of a training path: its places on the plane, and its own losses beside the plane's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loss_landscape.results.trajectory import Trajectory
from loss_landscape.viewing.checks import require_type
from loss_landscape.viewing.colour_scale import ColourScale
from loss_landscape.viewing.labels import write_powers
from loss_landscape.viewing.theme import BLUE, INK, ORANGE, empty_figure, mark_not_finite, set_notes, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_OF_NOTES = 60  # characters above one of two pictures


def trajectory_figure(path: Trajectory, *, title: str) -> Figure:
    """A path's checkpoints in the plane's units, and over the epochs their losses beside those of their projections."""
    require_type(path, Trajectory)
    figure = empty_figure(9.6, 4.2)
    places, losses = figure.subplots(1, 2)
    _draw_places(places, path)
    _draw_losses(losses, path)
    set_title(figure, title)
    return figure


def _draw_places(axes: Axes, path: Trajectory) -> None:
    columns = path.coordinates.T
    second = columns[1] if len(columns) > 1 else np.zeros(len(path.points))
    axes.plot(columns[0], second, ".-", color=BLUE, markersize=6, linewidth=1.2)
    axes.plot(columns[0][:1], second[:1], "s", color=ORANGE, label=f"epoch {path.points[0].epoch:g}")
    axes.plot(columns[0][-1:], second[-1:], "o", color=INK, label=f"epoch {path.points[-1].epoch:g}")
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xlabel="first direction", ylabel="second direction")
    for axis, values in ((axes.xaxis, columns[0]), (axes.yaxis, second)):
        write_powers(axis, values)
    axes.legend(fontsize=8, frameon=False)
    axes.grid(alpha=0.25)
    set_notes(axes, _notes(path), width=WIDTH_OF_NOTES)


def _notes(path: Trajectory) -> list[str]:
    shares = path.directions.explained_variance
    said = [f"up to {max(path.residuals):.3g} away from the plane"]
    return said if shares is None else [f"the axes hold {sum(shares):.1%} of the variance", *said]


def _draw_losses(axes: Axes, path: Trajectory) -> None:
    epochs = np.array([point.epoch for point in path.points])
    own, plane = np.array(path.losses), np.array(path.plane_losses)
    for losses, name, colour in ((own, "of the checkpoints", BLUE), (plane, "of their projections", ORANGE)):
        axes.plot(epochs, np.where(np.isfinite(losses), losses, np.nan), ".-", color=colour, markersize=5, label=name)
    mark_not_finite(axes, epochs[~(np.isfinite(own) & np.isfinite(plane))])
    if ColourScale.of(own, plane).logarithmic:
        axes.set_yscale("log")
    axes.set(xlabel="epoch", ylabel="loss")
    axes.legend(fontsize=8, frameon=False)
    axes.grid(alpha=0.25)
