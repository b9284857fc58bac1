"""The summary pictures of a run, from its record, its config and its saved grids alone."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loss_landscape.results.grid import Grid
from loss_landscape.viewing.colour_scale import SEVERAL_DECADES, ColourScale
from loss_landscape.viewing.plot import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    add_colour_bar,
    draw_plane,
    draw_trajectory,
    save_figure,
)
from taskshift.coupling import OUTCOMES, over_tasks, points
from taskshift.metrics.coupling import FEWEST_POINTS
from taskshift.summary import Row, by_task, plane_folders, read_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

Tasks = Mapping[int, Row]

MOST_PLANES = 12
MOST_BORDERS = 60
MOST_MARKERS = 60
MOST_LABELS = 9
NARROWEST = 7.5  # inches that a heading needs
MEASURES = ("approximate", "effective", "l1", "numerical", "stable")
"""Of rank."""

MEASURED = (
    ("test", "test", BLUE),
    ("train", "train", SKY),
    ("first_epoch_test", "test after one epoch", ORANGE),
    ("first_epoch", "train in epoch one", PURPLE),
    ("area_under", "train, mean over epochs", GREEN),
)
"""What `plasticity` measures: the name before the metric's, what the legend calls it, its colour."""


@dataclass(frozen=True)
class Curve:
    """One quantity over tasks or epochs. Its x has those places alone at which it was logged."""

    x: np.ndarray
    y: np.ndarray
    colour: object
    label: str | None = None
    style: str = "-"
    width: float = 1.6
    error: np.ndarray | None = None


@dataclass(frozen=True)
class Cloud:
    """Points of two quantities, with the number that says when each was."""

    x: np.ndarray
    y: np.ndarray
    order: np.ndarray
    x_name: str
    y_name: str
    order_name: str


@dataclass(frozen=True)
class Panel:
    """Curves that share their axes."""

    title: str
    curves: Sequence[Curve]
    x_name: str = "task"
    borders: Sequence[float] = field(default_factory=tuple)


def draw_summary(folder: Path) -> list[Path]:
    """Draw into `summary/` each picture that the run so far has data for; return those drawn."""
    folder = Path(folder)
    rows = read_rows(folder)
    tasks, heading = dict(sorted(by_task(rows).items())), _heading(folder)
    figures = {
        "learning.png": lambda: _figure_of(_learning(rows), heading, columns=1, size=(9.0, 2.9)),
        "plasticity.png": lambda: _figure_of(_plasticity(tasks), heading),
        "curvature.png": lambda: _figure_of(_curvature(tasks), heading),
        "ranks_and_units.png": lambda: _figure_of([*_ranks(tasks), *_units(tasks)], heading),
        "weights.png": lambda: _figure_of(_weights(tasks), heading),
        "planes.png": lambda: _planes(folder, heading),
        "coupling.png": lambda: _coupling(tasks, heading),
        "barrier_matrix.png": lambda: _barriers(folder, heading),
    }
    (folder / "summary").mkdir(exist_ok=True)
    drawn = []
    for name, draw in figures.items():
        figure = draw()
        if figure is not None:
            save_figure(folder / "summary" / name, figure)
            drawn.append(folder / "summary" / name)
    return drawn


def _heading(folder: Path) -> str:
    """The run's name, and what it is where its config is at hand."""
    import yaml

    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text()) if path.exists() else {}
    facts = [str(config[key]) for key in ("task_shift_mode", "arch") if key in config]
    return " · ".join([folder.resolve().name, *facts])


def _learning(rows: Sequence[Row]) -> Iterator[Panel]:
    """Loss and accuracy after each epoch, with the tasks' borders."""
    epochs = [row for row in rows if "epoch_loss" in row]
    if not epochs:
        return
    starts = {int(row["task_idx"]): row["global_epoch"] for row in reversed(epochs)}
    borders = sorted(starts.values())[1:]
    for metric in ("loss", "accuracy"):
        curves = [
            _over_epochs(rows, f"epoch_{metric}", BLUE, "train, as the examples came"),
            _over_epochs(rows, f"test_{metric}", ORANGE, "test"),
        ]
        yield Panel(metric, curves, f"epoch (tasks {min(starts)}–{max(starts)})", borders)


def _plasticity(tasks: Tasks) -> Iterator[Panel]:
    """What was learnt of each task, how fast, and how much less than by a new net."""
    for metric in ("accuracy", "loss"):
        learnt = [_over_tasks(tasks, f"plasticity/{name}_{metric}", colour, label) for name, label, colour in MEASURED]
        control = [_over_tasks(tasks, f"plasticity/control_{name}_{metric}", colour, style="--") for name, _, colour in MEASURED]
        beside = ", dashed: a new net" if any(len(curve.x) for curve in control) else ""
        yield Panel(f"{metric} on each task{beside}", [*learnt, *control])
    for metric in ("accuracy", "loss"):
        gaps = [_over_tasks(tasks, f"plasticity/gap_{name}_{metric}", colour, label) for name, label, colour in MEASURED]
        yield Panel(f"{metric}: this net less a new net", gaps)


def _curvature(tasks: Tasks) -> Iterator[Panel]:
    """Both ends of the Hessian's spectrum, its trace, its negative share, and SAM's sharpness."""
    ends = ("largest eigenvalues, ± residual", "top"), ("smallest eigenvalues, ± residual", "bottom")
    for title, end in ends:
        numbers = sorted(int(name.rpartition("_")[2]) for name in _names(tasks, rf"spectrum/{end}_eigenvalue_\d+"))
        coloured = zip(numbers, _shades(len(numbers)), strict=True)
        yield Panel(title, [_eigenvalue(tasks, end, number, colour) for number, colour in coloured])
    for title, name, error in (
        ("trace of the Hessian, ± standard error", "spectrum/trace", "spectrum/trace_standard_error"),
        ("share of negative eigenvalues, ± standard error", "spectrum/negative_mass", "spectrum/negative_mass_standard_error"),
        ("SAM: rise of the loss by an ascent of ρ", "sam/sharpness", None),
    ):
        end = _over_tasks(tasks, name, BLUE, "at a task's end", error=error)
        start = _over_tasks(tasks, f"start/{name}", ORANGE, "at its start", error and f"start/{error}", style="--")
        yield Panel(title, [end, start] if len(start.x) else [end])


def _eigenvalue(tasks: Tasks, end: str, number: int, colour: object) -> Curve:
    """An eigenvalue over tasks; its residual, relative to the spectrum's radius, becomes an error of its own unit."""
    curve = _over_tasks(tasks, f"spectrum/{end}_eigenvalue_{number}", colour, f"no. {number}", width=2.2 if number == 1 else 1.2)
    ends = ("spectrum/top_eigenvalue_1", "spectrum/bottom_eigenvalue_1")
    radius = {task: max((abs(row[name]) for name in ends if name in row), default=np.nan) for task, row in tasks.items()}
    error = [tasks[task].get(f"spectrum/{end}_residual_{number}", np.nan) * radius[task] for task in curve.x.astype(int)]
    return Curve(curve.x, curve.y, colour, curve.label, width=curve.width, error=np.array(error))


def _ranks(tasks: Tasks) -> Iterator[Panel]:
    for measure in MEASURES:
        yield Panel(f"{measure} rank of the features", _layers_and_all(tasks, "rank", f"{measure}_rank", "mean of the layers"))


def _units(tasks: Tasks) -> Iterator[Panel]:
    for state in ("dead", "dormant", "saturated"):
        yield Panel(f"share of {state} units", _layers_and_all(tasks, "units", f"{state}_fraction", "all layers"))


def _weights(tasks: Tasks) -> Iterator[Panel]:
    titles = {"mean_abs": "mean |weight|", "norm": "‖θ‖", "distance_from_init": "distance from the initial parameters"}
    for name, title in titles.items():
        yield Panel(title, _layers_and_all(tasks, "weights", name, "all layers"))


def _layers_and_all(tasks: Tasks, evaluator: str, name: str, label: str) -> list[Curve]:
    """A thin curve for each layer in order of depth, a thick one for all of them."""
    pattern = rf"{evaluator}/(.+)/{name}"
    layers = [re.fullmatch(pattern, key)[1] for key in _names(tasks, pattern)]
    curves = [
        _over_tasks(tasks, f"{evaluator}/{layer}/{name}", colour, layer, width=1.0)
        for layer, colour in zip(layers, _shades(len(layers)), strict=True)
    ]
    return [*curves, _over_tasks(tasks, f"{evaluator}/{name}", INK, label, width=2.4)]


def _names(tasks: Tasks, pattern: str) -> list[str]:
    """The record's names that match, in the order in which they appeared."""
    names = dict.fromkeys(name for row in tasks.values() for name in row)
    return [name for name in names if re.fullmatch(pattern, name)]


def _over_tasks(
    tasks: Tasks, name: str, colour: object, label: str | None = None, error: str | None = None, **look: Any
) -> Curve:
    """What the record calls `name`, at the tasks that have it; `error` is the name of its error."""
    found = {task: row for task, row in tasks.items() if name in row}
    errors = np.array([row.get(error, np.nan) for row in found.values()]) if error else None
    return Curve(np.array(list(found)), np.array([row[name] for row in found.values()]), colour, label, error=errors, **look)


def _over_epochs(rows: Sequence[Row], name: str, colour: str, label: str) -> Curve:
    found = [row for row in rows if name in row]
    x = np.array([row["global_epoch"] + 1 for row in found])
    return Curve(x, np.array([row[name] for row in found]), colour, label, width=1.3)


def _shades(count: int) -> list[tuple[float, ...]]:
    """Colours from dark to light, in an order that can be seen."""
    from matplotlib import colormaps

    return [colormaps["viridis"](place) for place in np.linspace(0.1, 0.85, count)]


def _figure_of(panels: Iterable[Panel], heading: str, columns: int = 3, size: tuple[float, float] = (4.6, 3.3)) -> Figure | None:
    """The panels that have something to show, or None where none has."""
    panels = [panel for panel in panels if any(len(curve.x) for curve in panel.curves)]
    if not panels:
        return None
    from matplotlib.figure import Figure

    columns = 2 if columns > 2 and len(panels) in (2, 4) else min(columns, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(max(NARROWEST, size[0] * columns), size[1] * lines + 0.3), layout="constrained")
    figure.suptitle(heading, fontsize=11, fontweight="bold")
    for place, panel in enumerate(panels, start=1):
        _draw_panel(figure.add_subplot(lines, columns, place), panel)
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> None:
    curves = [curve for curve in panel.curves if len(curve.x)]
    for curve in curves:
        _draw_curve(axes, curve)
    values = np.concatenate([curve.y[np.isfinite(curve.y)] for curve in curves])
    if values.size and values.min() > 0 and values.max() >= SEVERAL_DECADES * values.min():
        axes.set_yscale("log")
    if len(panel.borders) <= MOST_BORDERS:
        for border in panel.borders:
            axes.axvline(border, color=INK, linewidth=0.6, alpha=0.3)
    lost = sum(int((~np.isfinite(curve.y)).sum()) for curve in curves)
    axes.set_title(panel.title + (f" · not finite: {lost}" if lost else ""), fontsize=9.5)
    axes.set_xlabel(panel.x_name, fontsize=9)
    axes.xaxis.get_major_locator().set_params(integer=True)
    places = np.unique(np.concatenate([curve.x for curve in curves]))
    if len(places) == 1:
        axes.set_xlim(places[0] - 1, places[0] + 1)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.2)
    _add_legend(axes)


def _draw_curve(axes: Axes, curve: Curve) -> None:
    """A line with error bars; where it is not finite, a cross on the upper edge."""
    finite = np.isfinite(curve.y)
    marker = "." if len(curve.x) <= MOST_MARKERS else ""
    y = np.where(finite, curve.y, np.nan)
    error = None if curve.error is None else np.where(finite & np.isfinite(curve.error), curve.error, 0.0)
    style = {"color": curve.colour, "linestyle": curve.style, "linewidth": curve.width, "marker": marker, "label": curve.label}
    axes.errorbar(curve.x, y, error, capsize=2, elinewidth=1.0, **style)
    if not finite.all():
        edge = axes.get_xaxis_transform()
        axes.plot(curve.x[~finite], np.ones((~finite).sum()), "x", color=VERMILION, transform=edge, clip_on=False)


def _add_legend(axes: Axes) -> None:
    """Name the curves below the axes, where that covers nothing; of many layers the ends and one in the middle suffice."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > MOST_LABELS:
        kept = sorted({0, (len(labels) - 2) // 2, len(labels) - 2, len(labels) - 1})
        handles, labels = [handles[i] for i in kept], [labels[i] for i in kept]
    if labels:
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 2}
        axes.legend(handles, labels, fontsize=7, frameon=False, columnspacing=1.2, **place)


def _planes(folder: Path, heading: str) -> Figure | None:
    """The planes of all tasks, a row a kind and a column a task, on one colour scale; of many tasks, some spread evenly."""
    places = plane_folders(folder)
    if not places:
        return None
    every = sorted({task for _, task in places})
    shown = [every[i] for i in np.linspace(0, len(every) - 1, min(len(every), MOST_PLANES)).round().astype(int)]
    grids = {place: Grid.load(path) for place, path in places.items() if place[1] in shown}
    which = f"{len(shown)} of {len(every)} tasks, spread evenly" if len(shown) < len(every) else "every task"
    note = f"planes of {which}; above each: the loss at its centre, and how many ‖θ‖ one unit along α (→) and β (↑) is"
    return _table_of_planes(grids, heading, note)


def _table_of_planes(grids: Mapping[tuple[str, int], Grid], heading: str, note: str) -> Figure:
    from matplotlib.figure import Figure

    kinds = sorted({kind for kind, _ in grids}, key=lambda kind: (kind == "sam", kind))
    tasks = sorted({task for _, task in grids})
    width, height = max(NARROWEST, 2.1 * len(tasks) + 1.9), 2.3 * len(kinds) + 1.1
    figure = Figure(figsize=(width, height))  # fixed places: a computed layout of 48 planes takes seconds
    left, right, bottom, top = 0.75 / width, 1 - 1.05 / width, 0.3 / height, 1 - 1.05 / height
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
    figure.suptitle(heading, y=1 - 0.1 / height, fontsize=11, fontweight="bold")
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
    mesh = draw_plane(axes, grid, scale)
    draw_trajectory(axes, grid.meta.get("trajectory", []))
    axes.locator_params(nbins=3)
    axes.tick_params(labelsize=7)
    meta, lost = grid.meta, int((~np.isfinite(grid.losses)).sum())
    facts = [f"{meta['baseline_loss']:.3g}"]
    facts += [" × ".join(f"{norm / meta['origin_norm']:.2g}" for norm in meta["direction_norms"])] if meta["origin_norm"] else []
    facts += [f"not finite: {lost}"] if lost else []
    axes.set_title(" · ".join(facts), fontsize=7.5, pad=3)
    return mesh


def plot_coupling(path: Path, course: Mapping[str, Any], *, title: str) -> None:
    """Draw what the evaluator `coupling` found over a task's snapshots: the ranks, and their drops with the loss's changes.

    `course` is its metrics.json.
    """
    from matplotlib.figure import Figure

    steps, layers, mean = np.array(course["steps"]), course["layers"], course["mean"]
    ranks = [
        Curve(steps, np.array(row["approximate_rank"]), colour, layer, width=1.0)
        for (layer, row), colour in zip(layers.items(), _shades(len(layers)), strict=True)
    ]
    ranks.append(Curve(steps, np.array(mean["approximate_rank"]), INK, "mean of the layers", width=2.4))
    figure = Figure(figsize=(9.4, 3.9))  # fixed places: three times as fast as a computed layout
    figure.suptitle(title, fontsize=11, fontweight="bold")
    places = {"left": 0.055, "right": 0.985, "bottom": 0.13, "top": 0.8, "wspace": 0.22}
    left, right = figure.subplots(1, 2, gridspec_kw=places)
    _draw_panel(left, Panel("approximate rank of the features", ranks, "step of the task"))
    names = ("drop of the mean rank since the snapshot before (%)", "change of the loss since then", "step of the task")
    _draw_cloud(right, Cloud(100 * np.array(mean["drops"]), np.array(course["loss_change"]), steps[1:], *names), mean)
    save_figure(path, figure)


def _coupling(tasks: Tasks, heading: str) -> Figure | None:
    """Rank against the last loss and accuracy over the tasks, the values and their changes, where there are enough of them."""
    ranks = [name for measure in MEASURES if (name := f"rank/{measure}_rank") in set(_names(tasks, "rank/.+"))]
    clouds = [
        (_over_tasks_cloud(tasks, kind, ranks[0], outcome), asdict(over_tasks(tasks, kind, ranks[0], outcome)))
        for kind in ("drops", "levels")
        for outcome in OUTCOMES
        if ranks
    ]
    clouds = [(cloud, found) for cloud, found in clouds if len(cloud.x) >= FEWEST_POINTS]
    if not clouds:
        return None
    from matplotlib.figure import Figure

    columns = min(2, len(clouds))
    figure = Figure(figsize=(max(NARROWEST, 5.2 * columns), 3.9 * -(-len(clouds) // columns)), layout="constrained")
    figure.suptitle(heading, fontsize=11, fontweight="bold")
    for place, (cloud, found) in enumerate(clouds, start=1):
        _draw_cloud(figure.add_subplot(-(-len(clouds) // columns), columns, place), cloud, found)
    return figure


def _over_tasks_cloud(tasks: Tasks, kind: str, rank: str, outcome: str) -> Cloud:
    x, y, of = points(tasks, kind, rank, outcome)
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
    """A Coupling's coefficients with their intervals and p-values, or why there are none."""
    if found["why_none"]:
        return textwrap.fill(f"no coefficient: {found['why_none']}", 60)
    lines = [
        f"{name} {of['coefficient']:.2f} [{of['low']:.2f}, {of['high']:.2f}], p = {of['p_value']:.2g}"
        for name, of in (("Spearman", found["spearman"]), ("Pearson", found["pearson"]))
    ]
    return "\n".join([*lines, f"{found['num_points']} points"])


def _barriers(folder: Path, heading: str) -> Figure | None:
    """The matrix of barriers between the tasks' nets, and of each one's loss on each task, where the run has them."""
    path = folder / "summary" / "barrier_matrix.json"
    if not path.exists():
        return None
    from matplotlib.figure import Figure

    content = json.loads(path.read_text())
    tasks = content["tasks"]
    side = min(9.0, 3.0 + 0.4 * len(tasks))
    figure = Figure(figsize=(2 * side + 2.0, side), layout="constrained")
    figure.suptitle(heading, fontsize=11, fontweight="bold")
    left, right = figure.subplots(1, 2)
    barrier, loss = np.array(content["barrier"]), np.array(content["loss"])
    _draw_matrix(left, barrier, tasks, "barrier: rise above the line between the ends' losses")
    _draw_matrix(right, loss, tasks, "loss of each net on each task's data")
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
    if len(tasks) <= MOST_PLANES:
        for (row, column), value in np.ndenumerate(matrix):
            colour = INK if value > 0.5 * top else "white"
            axes.text(column + 0.5, row + 0.5, f"{value:.2g}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_xticks(np.arange(len(tasks)) + 0.5, tasks, fontsize=8)
    axes.set_yticks(np.arange(len(tasks)) + 0.5, tasks, fontsize=8)
    axes.set_title(title + ("" if finite.all() else f" · not finite: {int((~finite).sum())}"), fontsize=9.5)
    axes.figure.colorbar(mesh, ax=axes).ax.tick_params(labelsize=8)
