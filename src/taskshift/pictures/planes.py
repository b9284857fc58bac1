"""planes.png: the planes of all tasks, a row a kind and a column a task, on one colour scale."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from loss_landscape.results.grid import Grid
from loss_landscape.viewing.colour_scale import ColourScale
from loss_landscape.viewing.planes import add_colour_bar, draw_plane, draw_trajectory
from taskshift.pictures.draw import NARROWEST, lost_in_words, titled_figure
from taskshift.pictures.written_run import WrittenRun
from taskshift.summary import plane_folders

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

MOST_TASKS = 12


def draw_planes(run: WrittenRun) -> Figure | None:
    """The planes that the run has saved; of many tasks, some spread evenly."""
    places = plane_folders(run.folder)
    if not places:
        return None
    every = sorted({task for _, task in places})
    shown = [every[i] for i in np.linspace(0, len(every) - 1, min(len(every), MOST_TASKS)).round().astype(int)]
    grids = {place: Grid.load(path) for place, path in places.items() if place[1] in shown}
    which = f"{len(shown)} of {len(every)} tasks, spread evenly" if len(shown) < len(every) else "every task"
    note = f"planes of {which}; above each: the loss at its centre, and how many ‖θ‖ one unit along α (→) and β (↑) is"
    return _table_of_planes(grids, run.heading, note)


def _table_of_planes(grids: Mapping[tuple[str, int], Grid], heading: str, note: str) -> Figure:
    kinds = sorted({kind for kind, _ in grids}, key=lambda kind: (kind == "sam", kind))
    tasks = sorted({task for _, task in grids})
    width, height = max(NARROWEST, 2.1 * len(tasks) + 1.9), 2.3 * len(kinds) + 1.1
    left, right, bottom, top = 0.75 / width, 1 - 1.05 / width, 0.3 / height, 1 - 1.05 / height
    # fixed places: a computed layout of 48 planes takes seconds
    figure = titled_figure(heading, (width, height), layout=None, y=1 - 0.1 / height)
    alike = len({tuple((axis[0], axis[-1]) for axis in grid.coordinates) for grid in grids.values()}) == 1
    spaces = {"wspace": 0.08, "hspace": 0.18} if alike else {"wspace": 0.3, "hspace": 0.32}  # room for ticks at each plane
    inside = {"left": left, "right": right, "bottom": bottom, "top": top} | spaces
    panels = figure.subplots(len(kinds), len(tasks), squeeze=False, gridspec_kw=inside)
    scale = ColourScale.of(*(grid.losses for grid in grids.values()))
    for (row, column), axes in np.ndenumerate(panels):
        axes.set_axis_off()
        if (kinds[row], tasks[column]) in grids:
            mesh = _draw_small_plane(axes, grids[kinds[row], tasks[column]], scale)
            axes.tick_params(labelleft=not alike, labelbottom=not alike)
    _name_rows_and_columns(panels, kinds, tasks)
    bar = figure.add_axes((right + 0.15 / width, bottom, 0.18 / width, top - bottom))
    add_colour_bar(figure, mesh, scale, "loss, one scale for all", cax=bar)
    figure.text(0.5, 1 - 0.42 / height, textwrap.fill(note, int(15 * width)), ha="center", va="top", fontsize=8)
    return figure


def _name_rows_and_columns(panels: np.ndarray, kinds: Sequence[str], tasks: Sequence[int]) -> None:
    """Kinds on the left, tasks on top, and the coordinates where a row or column of planes begins."""
    bold = {"xycoords": "axes fraction", "fontsize": 10, "fontweight": "bold"}
    for row, kind in zip(panels, kinds, strict=True):
        next(axes for axes in row if axes.axison).tick_params(labelleft=True)
        row[0].annotate(kind, (-0.33, 0.5), rotation=90, va="center", **bold)
    for column, task in zip(panels.T, tasks, strict=True):
        next(axes for axes in reversed(column) if axes.axison).tick_params(labelbottom=True)
        column[0].annotate(f"task {task}", (0.5, 1.13), ha="center", **bold)


def _draw_small_plane(axes: Axes, grid: Grid, scale: ColourScale) -> QuadMesh:
    axes.set_axis_on()
    axes.set_box_aspect(1)
    mesh, directions = draw_plane(axes, grid, scale), grid.info.directions
    draw_trajectory(axes, [point.to_json() for point in directions.trajectory or ()])
    axes.locator_params(nbins=3)
    axes.tick_params(labelsize=7)
    facts = [f"{grid.info.baseline_loss:.3g}"]
    facts += [" × ".join(f"{norm:.2g}" for norm in directions.relative_norms)] if directions.relative_norms else []
    axes.set_title(" · ".join([*facts, *lost_in_words(grid.losses)]), fontsize=7.5, pad=3)
    return mesh
