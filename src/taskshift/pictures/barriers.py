"""barrier_matrix.png: the barriers between the tasks' nets, and each one's loss on each task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from loss_landscape.viewing.theme import VERMILION
from taskshift.pictures.draw import colour_of_text, lost_in_words, titled_figure
from taskshift.pictures.written_run import WrittenRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_WRITTEN_OUT = 12  # tasks whose numbers fit into their cells


def draw_barriers(run: WrittenRun) -> Figure | None:
    """The two matrices side by side, where the run has them."""
    path = run.folder / "summary" / "barrier_matrix.json"
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    tasks = content["tasks"]
    side = min(9.0, 3.0 + 0.4 * len(tasks))
    figure = titled_figure(run.heading, (2 * side + 2.0, side))
    left, right = figure.subplots(1, 2)
    _draw_matrix(left, np.array(content["barrier"]), tasks, "barrier: rise above the line between the ends' losses")
    _draw_matrix(right, np.array(content["loss"]), tasks, "loss of each net on each task's data")
    left.set_xlabel("to the net at the end of this task, on its data", fontsize=9)
    right.set_xlabel("on the data of this task", fontsize=9)
    left.set_ylabel("from the net at the end of this task", fontsize=9)
    right.set_ylabel("the net at the end of this task", fontsize=9)
    return figure


def _draw_matrix(axes: Axes, matrix: np.ndarray, tasks: Sequence[int], title: str) -> None:
    """A square of losses [tasks, tasks], the first row on top, with its colour bar; few enough are written out."""
    from matplotlib import colormaps

    finite = np.isfinite(matrix)
    top = float(np.max(matrix, where=finite, initial=0.0)) or 1.0
    colours = colormaps["viridis"].with_extremes(bad=VERMILION)
    mesh = axes.pcolormesh(np.ma.masked_where(~finite, matrix), cmap=colours, vmin=0.0, vmax=top, edgecolors="white")
    if len(tasks) <= MOST_WRITTEN_OUT:
        for (row, column), value in np.ndenumerate(matrix):
            place = {"ha": "center", "va": "center", "fontsize": 8, "color": colour_of_text(mesh, value)}
            axes.text(column + 0.5, row + 0.5, f"{value:.2g}", **place)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_xticks(np.arange(len(tasks)) + 0.5, tasks, fontsize=8)
    axes.set_yticks(np.arange(len(tasks)) + 0.5, tasks, fontsize=8)
    axes.set_title(" · ".join([title, *lost_in_words(matrix)]), fontsize=9.5)
    axes.figure.colorbar(mesh, ax=axes).ax.tick_params(labelsize=8)
