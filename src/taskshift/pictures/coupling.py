"""coupling.png: rank against loss and accuracy, over a run's tasks and over the snapshots of one task."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from loss_landscape.viewing.theme import INK, save_figure
from taskshift.coupling import OUTCOMES, over_tasks, points
from taskshift.metrics.coupling import FEWEST_POINTS
from taskshift.metrics.ranks import Measure
from taskshift.pictures.draw import NARROWEST, Curve, Panel, draw_panel, shades, titled_figure
from taskshift.pictures.written_run import WrittenRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Cloud:
    """Points of two quantities, with the number that says when each was."""

    x: np.ndarray
    y: np.ndarray
    order: np.ndarray
    x_name: str
    y_name: str
    order_name: str


def draw_coupling(run: WrittenRun) -> Figure | None:
    """Rank against the last loss and accuracy over the tasks, the values and their changes, where there are enough of them."""
    ranks = [name for measure in get_args(Measure) if (name := f"rank/{measure}_rank") in set(run.names("rank/.+"))]
    clouds = [
        (_over_tasks(run, kind, ranks[0], outcome), asdict(over_tasks(run.tasks, kind, ranks[0], outcome)))
        for kind in ("drops", "levels")
        for outcome in OUTCOMES
        if ranks
    ]
    clouds = [(cloud, found) for cloud, found in clouds if len(cloud.x) >= FEWEST_POINTS]
    if not clouds:
        return None
    columns = min(2, len(clouds))
    lines = -(-len(clouds) // columns)
    figure = titled_figure(run.heading, (max(NARROWEST, 5.2 * columns), 3.9 * lines))
    for place, (cloud, found) in enumerate(clouds, start=1):
        _draw_cloud(figure.add_subplot(lines, columns, place), cloud, found)
    return figure


def plot_coupling(path: Path, course: Mapping[str, Any], *, title: str) -> None:
    """Draw what the evaluator `coupling` found over a task's snapshots: the ranks, and their drops with the loss's changes.

    `course` is its metrics.json.
    """
    steps, layers, mean = np.array(course["steps"]), course["layers"], course["mean"]
    ranks = [
        Curve(steps, np.array(row["approximate_rank"]), colour, layer, width=1.0)
        for (layer, row), colour in zip(layers.items(), shades(len(layers)), strict=True)
    ]
    ranks.append(Curve(steps, np.array(mean["approximate_rank"]), INK, "mean of the layers", width=2.4))
    figure = titled_figure(title, (9.4, 3.9), layout=None)  # fixed places: three times as fast as a computed layout
    places = {"left": 0.055, "right": 0.985, "bottom": 0.13, "top": 0.8, "wspace": 0.22}
    left, right = figure.subplots(1, 2, gridspec_kw=places)
    draw_panel(left, Panel("approximate rank of the features", ranks, "step of the task"))
    names = ("drop of the mean rank since the snapshot before (%)", "change of the loss since then", "step of the task")
    _draw_cloud(right, Cloud(100 * np.array(mean["drops"]), np.array(course["loss_change"]), steps[1:], *names), mean)
    save_figure(path, figure)


def _over_tasks(run: WrittenRun, kind: str, rank: str, outcome: str) -> Cloud:
    x, y, of = points(run.tasks, kind, rank, outcome)
    rank, outcome = rank.removeprefix("rank/").replace("_", " "), outcome.removeprefix("task_last_epoch_")
    if kind == "levels":
        return Cloud(x.numpy(), y.numpy(), np.array(of), f"{rank} at the task's end", f"last {outcome} of the task", "task")
    names = (f"drop of the {rank} since the task before (%)", f"change of the last {outcome} since then", "task")
    return Cloud(100 * x.numpy(), y.numpy(), np.array(of), *names)


def _draw_cloud(axes: Axes, cloud: Cloud, found: Mapping[str, Any]) -> None:
    """The points in the colours of their order, under what `found`, a Coupling as a mapping, says of them."""
    dots = axes.scatter(cloud.x, cloud.y, c=cloud.order, cmap="viridis", s=28, edgecolors=INK, linewidths=0.5)
    bar = axes.figure.colorbar(dots, ax=axes)
    bar.set_label(cloud.order_name, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    axes.set_title(_in_words(found), fontsize=9)
    axes.set_xlabel(cloud.x_name, fontsize=9)
    axes.set_ylabel(cloud.y_name, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.2)


def _in_words(found: Mapping[str, Any]) -> str:
    """A Coupling's coefficients with their intervals, or why there are none."""
    if found["why_none"]:
        return textwrap.fill(f"no coefficient: {found['why_none']}", 60)
    lines = [
        f"{name} {of['coefficient']:.2f} [{of['low']:.2f}, {of['high']:.2f}]"
        for name, of in (("Spearman", found["spearman"]), ("Pearson", found["pearson"]))
    ]
    return "\n".join([*lines, f"{found['num_points']} points"])
