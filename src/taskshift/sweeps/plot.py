"""Figures of a sweep from its runs' records: curves and bars with intervals over runs, heat maps over two overrides."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from loss_landscape.viewing.colour_scale import ColourScale
from loss_landscape.viewing.theme import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILION, save_figure, set_notes
from taskshift.faults import Fault
from taskshift.pictures.draw import colour_of_text, mark_lost, marker, spans_decades, titled_figure
from taskshift.quantities import Quantities
from taskshift.run_folder import read_quantities
from taskshift.sweeps.intervals import FEWEST, LEVEL
from taskshift.sweeps.records import PLACE, Record, Value, in_order, no_metric, read_sweeps, runs_in_words, shown_value
from taskshift.sweeps.series import LAST, LaidOut, Series, series_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, INK)
ENDINGS = ("png", "pdf")
STYLES = ("-", "--", ":", "-.")
MOST_BARS = 80
NAMES = {"task_idx": "task", "global_epoch": "epoch"}


@dataclass(frozen=True)
class Wanted:
    """What a figure shows: `metric` over `x`, apart for each value of `group`; over overrides, at the end of task `at`."""

    metric: str | None
    x: str
    group: str | None = None
    kind: str | None = None  # null: curves over tasks, epochs and numbers, bars over words
    at: str = LAST


def plot_sweep(folder: Path, wanted: Wanted, stem: Path | None, force: bool) -> list[Path]:
    """Draw a figure of the sweep in `folder` as PNG and PDF; return both paths.

    Without a `stem` they go into the sweep's figures/, where an earlier one of that name is drawn anew; files that a `stem`
    names are kept, unless `force` is given. Raises Fault for what the runs do not have.
    """
    records = read_sweeps([folder])
    if wanted.metric is None:
        raise no_metric(records)
    paths = [Path(f"{stem or folder / 'figures' / _file_name(wanted)}.{ending}") for ending in ENDINGS]
    if stem is not None and not force and (there := [path for path in paths if path.exists()]):
        raise Fault(f"{there[0]} exists; give another -o, or --force to write over it")
    figure = draw(records, wanted, heading=records[0].sweep)
    try:
        logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every table of every font
        for path in paths:
            save_figure(path, figure)
    except OSError as error:
        raise Fault(f"cannot write {paths[0]}: {error.strerror}; name another place by -o") from error
    return paths


def draw(records: Sequence[Record], wanted: Wanted, heading: str) -> Figure:
    """The figure, from the records alone; raises Fault for what the runs do not have."""
    laid_out = series_of(records, wanted.metric, wanted.x, wanted.group, wanted.at)
    kind = wanted.kind or _fitting(laid_out.series, wanted)
    figure = titled_figure(heading, (7.6, 4.8))
    axes = figure.add_subplot()
    draw_kind = {"curves": _draw_curves, "bars": _draw_bars, "heatmap": _draw_heat_map}[kind]
    draw_kind(axes, laid_out.series, wanted, _with_unit(records, wanted.metric))
    width = 95 if wanted.group is None or kind == "heatmap" else 68  # beside a legend
    set_notes(axes, list(_notes(records, laid_out, wanted, kind)), width=width)
    return figure


def _file_name(wanted: Wanted) -> str:
    parts = [wanted.metric, "over", wanted.x, *(["by", wanted.group] if wanted.group else [])]
    parts += [wanted.kind] if wanted.kind else []
    parts += ["at", wanted.at.replace(":", "")] if wanted.at != LAST else []
    return "_".join(parts).replace("/", "-")


def _fitting(series: Sequence[Series], wanted: Wanted) -> str:
    places = [place for one in series for place in one.places]
    return "curves" if wanted.x in PLACE or _are_numbers(places) else "bars"


def _with_unit(records: Sequence[Record], metric: str) -> str:
    """The metric for an axis, its unit in brackets where a run declares one."""
    declared = (read_quantities(record.folder) for record in records)
    quantities = next((some for some in declared if some.of(metric) is not None), Quantities())
    unit = quantities.unit(metric, of_classes=_are_of_classes(records))
    return f"{metric} [{unit}]" if unit else metric


def _are_of_classes(records: Sequence[Record]) -> bool:
    """Whether the runs' tasks are of classes: only those have an accuracy."""
    return any(record.rows("epoch_accuracy") for record in records)


# -- curves ---------------------------------------------------------------------------------------------------


def _draw_curves(axes: Axes, series: Sequence[Series], wanted: Wanted, label: str) -> None:
    """Means over runs with their bands; a cross on the upper edge where no run has a finite value."""
    places = [place for one in series for place in one.places]
    if not _are_numbers(places):
        raise Fault(f"--kind curves: {wanted.x} is no number; use --kind bars")
    for one, (colour, style) in zip(series, _looks(series), strict=True):
        _draw_curve(axes, one, colour, style, _name(wanted.group, one.group))
    if wanted.x not in PLACE and spans_decades(places):
        axes.set_xscale("log")
    elif all(isinstance(place, int) for place in places):
        axes.xaxis.get_major_locator().set_params(integer=True)
    means = np.concatenate([one.means() for one in series])
    if spans_decades(means[np.isfinite(means)]):
        axes.set_yscale("log")
    _finish(axes, series, wanted, label)


def _draw_curve(axes: Axes, series: Series, colour: object, style: str, name: str | None) -> None:
    x, means, (low, high) = np.array(series.places, dtype=float), series.means(), series.intervals()
    axes.plot(x, means, color=colour, linestyle=style, linewidth=1.6, marker=marker(x), markersize=6, label=name)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    if len(x) == 1 or not np.isfinite(low).any():
        axes.vlines(x, low, high, color=colour, alpha=0.5)
    _mark_lost(axes, series, x)


# -- bars -----------------------------------------------------------------------------------------------------


def _draw_bars(axes: Axes, series: Sequence[Series], wanted: Wanted, label: str) -> None:
    """A bar at each mean with its interval, and every run as a point beside it; the groups stand side by side at each place.

    Nothing is drawn down to 0: accuracies of 0.81 and 0.82 would look alike.
    """
    places = sorted({place for one in series for place in one.places}, key=in_order)
    if len(places) * len(series) > MOST_BARS:
        raise Fault(f"--kind bars: {len(places) * len(series)} bars could not be told apart; use --kind curves, or another --x")
    width = 0.8 / len(series)
    for number, (one, (colour, _)) in enumerate(zip(series, _looks(series), strict=True)):
        centres = np.array([places.index(place) for place in one.places]) + width * (number - (len(series) - 1) / 2)
        _draw_group_of_bars(axes, one, centres, width, colour, _name(wanted.group, one.group))
    axes.set_xticks(range(len(places)), [shown_value(place) for place in places])
    _slant_if_long(axes, places)
    _finish(axes, series, wanted, label)


def _draw_group_of_bars(axes: Axes, series: Series, centres: np.ndarray, width: float, colour: object, name: str | None) -> None:
    means, (low, high) = series.means(), series.intervals()
    axes.plot(centres, means, "_", color=colour, markersize=22, markeredgewidth=2.5, label=name)
    axes.errorbar(centres, means, np.maximum(0.0, [means - low, high - means]), fmt="none", ecolor=INK, capsize=3, elinewidth=1.2)
    point = {"color": colour, "markersize": 4.5, "markeredgecolor": "white", "markeredgewidth": 0.6, "linestyle": "none"}
    for centre, values, used in zip(centres, series.values.T, series.used.T, strict=True):
        spread = np.linspace(0.1, 0.4, used.sum() + 2)[1:-1]  # to the right: on the interval nobody would see them
        axes.plot(centre + width * spread, values[used], "o", **point)
    _mark_lost(axes, series, centres)


def _slant_if_long(axes: Axes, places: Sequence[Value]) -> None:
    if sum(len(shown_value(place)) + 2 for place in places) > 80:
        for text in axes.get_xticklabels():
            text.set(rotation=30, horizontalalignment="right")


# -- heat maps ------------------------------------------------------------------------------------------------


def _draw_heat_map(axes: Axes, series: Sequence[Series], wanted: Wanted, label: str) -> None:
    """A cell for each pair of values, with its mean and its number of runs; cells without a run stay white."""
    if wanted.group is None or wanted.group == wanted.x:
        raise Fault("--kind heatmap: expected two overrides, --x one and --group the other")
    columns = sorted({place for one in series for place in one.places}, key=in_order)
    means, counts = np.full((2, len(series), len(columns)), np.nan)
    for row, one in enumerate(series):
        at = [columns.index(place) for place in one.places]
        means[row, at], counts[row, at] = one.means(), one.counts()
    scale = ColourScale.of(means)
    mesh = axes.pcolormesh(np.ma.masked_invalid(means), cmap="viridis", norm=scale.norm(), edgecolors="white", linewidth=1)
    for (row, column), mean in np.ndenumerate(means):
        if counts[row, column] >= 0:
            _write_cell(axes, mesh, row, column, mean, int(counts[row, column]), size=9 if len(columns) <= 8 else 6.5)
    axes.set_xticks(np.arange(len(columns)) + 0.5, [shown_value(place) for place in columns])
    axes.set_yticks(np.arange(len(series)) + 0.5, [shown_value(one.group) for one in series])
    axes.tick_params(length=0, labelsize=8.5)
    _slant_if_long(axes, columns)
    axes.set(xlabel=wanted.x, ylabel=wanted.group)
    axes.figure.colorbar(mesh, ax=axes, label=label, extend="max" if scale.clipped else "neither")


def _write_cell(axes: Axes, mesh: QuadMesh, row: int, column: int, mean: float, count: int, size: float) -> None:
    """A cell's mean and count."""
    words = f"{mean:.3g}\nn = {count}" if np.isfinite(mean) else "not\nfinite"
    axes.text(column + 0.5, row + 0.5, words, color=colour_of_text(mesh, mean), fontsize=size, ha="center", va="center")


# -- what all of them share -----------------------------------------------------------------------------------


def _finish(axes: Axes, series: Sequence[Series], wanted: Wanted, label: str) -> None:
    """Names, grid, and a legend beside the axes, where it can cover nothing."""
    axes.set(xlabel=NAMES.get(wanted.x, wanted.x), ylabel=label)
    axes.tick_params(labelsize=8.5)
    axes.grid(alpha=0.2)
    if wanted.group is not None:
        axes.figure.legend(loc="outside right upper", fontsize=8, frameon=False)


def _mark_lost(axes: Axes, series: Series, x: np.ndarray) -> None:
    """A cross where the runs have values, but none that is finite."""
    mark_lost(axes, x[series.there.any(axis=0) & ~series.used.any(axis=0)])


def _notes(records: Sequence[Record], laid_out: LaidOut, wanted: Wanted, kind: str) -> Iterable[str]:
    """What a reader must know of the figure's numbers."""
    counts = np.concatenate([one.counts() for one in laid_out.series])
    least, most = counts[counts > 0].min(initial=counts.max()), counts.max()
    number = f"{least} to {most} runs" if least < most else runs_in_words(most)
    mixed = [key for key in sorted(records[0].overrides) if key not in (wanted.x, wanted.group) and _varies(records, key)]
    yield f"mean of {number}" + (f" over {' and '.join(mixed)}" if mixed else "")
    if kind != "heatmap":
        enough = most >= FEWEST
        yield f"{LEVEL:.0%} interval of the mean (Student's t)" if enough else f"no interval: it takes {FEWEST} runs"
    if chosen := laid_out.chosen:
        absent = f", where {chosen.num_absent} of {runs_in_words(len(records))} have none" if chosen.num_absent else ""
        yield f"{chosen.words}{absent}"
    if lost := sum(one.num_lost for one in laid_out.series):
        yield f"not finite and in no mean: {lost} value{'s' if lost > 1 else ''}"


def _varies(records: Sequence[Record], key: str) -> bool:
    return len({record.overrides[key] for record in records}) > 1


def _name(group: str | None, value: Value) -> str | None:
    return None if group is None else f"{group}={shown_value(value)}"


def _looks(series: Sequence[Series]) -> list[tuple[object, str]]:
    """A colour and a line style for each group: shades in order for numbers, else colours that all readers can tell apart."""
    groups = [one.group for one in series]
    if len(groups) > len(COLOURS) and _are_numbers(groups):
        from matplotlib import colormaps

        return [(colormaps["viridis"](place), "-") for place in np.linspace(0.0, 0.9, len(groups))]
    return [(COLOURS[i % len(COLOURS)], STYLES[i // len(COLOURS) % len(STYLES)]) for i in range(len(groups))]


def _are_numbers(values: Iterable[Value]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
