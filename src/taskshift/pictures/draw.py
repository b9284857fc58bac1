"""The drawing kit: figures under a heading, panels of curves, and the rules that every picture keeps to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from loss_landscape.viewing.colour_scale import SEVERAL_DECADES
from loss_landscape.viewing.theme import INK, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

MOST_BORDERS = 60
MOST_MARKERS = 60
MOST_LABELS = 9
NARROWEST = 7.5  # inches that a heading needs


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
class Panel:
    """Curves that share their axes."""

    title: str
    curves: Sequence[Curve]
    x_name: str = "task"
    borders: Sequence[float] = field(default_factory=tuple)


# -- figures --------------------------------------------------------------------------------------------------


def titled_figure(heading: str, size: tuple[float, float], *, layout: str | None = "constrained", **place: Any) -> Figure:
    """An empty figure of `size` inches under its heading, at `place` where that is given. Without a layout nothing moves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout=layout)
    figure.suptitle(heading, fontsize=11, fontweight="bold", **place)
    return figure


def figure_of(
    panels: Iterable[Panel], heading: str, *, columns: int = 3, size: tuple[float, float] = (4.6, 3.3)
) -> Figure | None:
    """The panels that have something to show, each of `size` inches, or None where none has."""
    panels = [panel for panel in panels if any(len(curve.x) for curve in panel.curves)]
    if not panels:
        return None
    columns = 2 if columns > 2 and len(panels) in (2, 4) else min(columns, len(panels))
    lines = -(-len(panels) // columns)
    figure = titled_figure(heading, (max(NARROWEST, size[0] * columns), size[1] * lines + 0.3))
    for place, panel in enumerate(panels, start=1):
        draw_panel(figure.add_subplot(lines, columns, place), panel)
    return figure


# -- panels of curves -----------------------------------------------------------------------------------------


def draw_panel(axes: Axes, panel: Panel) -> None:
    """The panel's curves with their title, grid and legend; on a log axis where they span decades."""
    curves = [curve for curve in panel.curves if len(curve.x)]
    for curve in curves:
        _draw_curve(axes, curve)
    values = np.concatenate([curve.y for curve in curves])
    if spans_decades(values[np.isfinite(values)]):
        axes.set_yscale("log")
    if len(panel.borders) <= MOST_BORDERS:
        for border in panel.borders:
            axes.axvline(border, color=INK, linewidth=0.6, alpha=0.3)
    axes.set_title(" · ".join([panel.title, *lost_in_words(values)]), fontsize=9.5)
    axes.set_xlabel(panel.x_name, fontsize=9)
    axes.xaxis.get_major_locator().set_params(integer=True)
    places = np.unique(np.concatenate([curve.x for curve in curves]))
    if len(places) == 1:
        axes.set_xlim(places[0] - 1, places[0] + 1)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.2)
    _add_legend(axes)


def _draw_curve(axes: Axes, curve: Curve) -> None:
    """A line with error bars, and crosses where it is not finite."""
    finite = np.isfinite(curve.y)
    error = None if curve.error is None else np.where(finite & np.isfinite(curve.error), curve.error, 0.0)
    style = {"color": curve.colour, "linestyle": curve.style, "linewidth": curve.width, "label": curve.label}
    axes.errorbar(curve.x, np.where(finite, curve.y, np.nan), error, capsize=2, elinewidth=1.0, marker=marker(curve.x), **style)
    mark_lost(axes, curve.x[~finite])


def _add_legend(axes: Axes) -> None:
    """Name the curves below the axes, where that covers nothing; of many layers the ends and one in the middle suffice."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > MOST_LABELS:
        kept = sorted({0, (len(labels) - 2) // 2, len(labels) - 2, len(labels) - 1})
        handles, labels = [handles[i] for i in kept], [labels[i] for i in kept]
    if labels:
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 2}
        axes.legend(handles, labels, fontsize=7, frameon=False, columnspacing=1.2, **place)


# -- rules ----------------------------------------------------------------------------------------------------


def marker(places: Sequence[float] | np.ndarray) -> str:
    """Points on a curve, unless there are so many of them that they hide it."""
    return "." if len(places) <= MOST_MARKERS else ""


def spans_decades(values: Sequence[float] | np.ndarray) -> bool:
    """Whether an axis of these finite values is logarithmic: all above 0, the largest a hundred times the smallest or more."""
    return len(values) > 0 and bool(np.min(values) > 0 and np.max(values) >= SEVERAL_DECADES * np.min(values))


def mark_lost(axes: Axes, places: np.ndarray) -> None:
    """A cross on the upper edge at each x [n] whose value is not finite."""
    if len(places):
        edge = axes.get_xaxis_transform()
        axes.plot(places, np.ones(len(places)), "x", color=VERMILION, transform=edge, clip_on=False)


def lost_in_words(values: np.ndarray) -> list[str]:
    """How many of the values are not finite, for a title; nothing where all are."""
    lost = int((~np.isfinite(values)).sum())
    return [f"not finite: {lost}"] if lost else []


def colour_of_text(mesh: QuadMesh, value: float) -> str:
    """Black on light cells of a heat map, white on dark ones; a cell without a colour is white paper."""
    red, green, blue, opacity = mesh.cmap(mesh.norm(value)) if np.isfinite(value) else mesh.cmap.get_bad()
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "black" if opacity * luminance + (1 - opacity) > 0.5 else "white"


def shades(count: int) -> list[tuple[float, ...]]:
    """Colours from dark to light, in an order that can be seen."""
    from matplotlib import colormaps

    return [colormaps["viridis"](place) for place in np.linspace(0.1, 0.85, count)]
