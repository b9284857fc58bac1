"""The picture of a landscape record: its main grid, with the paths that lie on its plane."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from loss_landscape.results.trajectory import Trajectory
from loss_landscape.storage.records import LandscapeRecord
from loss_landscape.viewing.lines import line_figure
from loss_landscape.viewing.planes import contour_figure, volume_figure
from loss_landscape.viewing.theme import BLUE, ORANGE, PURPLE, SKY, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PATH_COLOURS = (ORANGE, SKY, PURPLE, BLUE)


def plot_landscape(path: Path, record: LandscapeRecord) -> None:
    """Draw the plane of a record with its paths, else its line, else its volume; the file's ending chooses the format."""
    save_figure(path, landscape_figure(record))


def landscape_figure(record: LandscapeRecord) -> Figure:
    """The figure of `plot_landscape`."""
    grid, mode = record.main_grid, record.main_mode
    title = str(record.metadata.get("experiment") or grid.info.extra.get("model") or "loss landscape")
    if mode == "1d":
        return line_figure(grid, title=title)
    if mode == "3d":
        return volume_figure(grid, title=title)
    paths = record.paths_on(grid)
    figure = contour_figure(grid, title=title, trajectory=_points(paths[0]) if paths else None)
    for colour, path in zip(itertools.cycle(PATH_COLOURS), paths[1:], strict=False):
        _draw_path(figure.axes[0], path, colour)
    if len(paths) > 1:
        figure.axes[0].legend(fontsize=8, loc="upper left", framealpha=0.8)
    return figure


def _points(path: Trajectory) -> list[dict[str, float]]:
    """A path as planes' pictures take it."""
    rows = zip(path.coordinates, path.residuals, strict=True)
    return [{"alpha": float(alpha), "beta": float(beta), "residual": residual} for (alpha, beta, *_), residual in rows]


def _draw_path(axes: Axes, path: Trajectory, colour: str) -> None:
    """A further path, without moving the plane's limits."""
    limits = axes.get_xlim(), axes.get_ylim()
    alpha, beta = np.array(path.coordinates).T[:2]
    axes.plot(alpha, beta, ".-", color=colour, linewidth=1.5, markersize=6, label=path.name)
    axes.set(xlim=limits[0], ylim=limits[1])
