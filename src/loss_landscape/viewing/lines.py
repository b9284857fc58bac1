"""Pictures over one coordinate: the losses along a direction, and along the curves between two nets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from loss_landscape.results.grid import Grid
from loss_landscape.results.path_losses import PathLosses
from loss_landscape.viewing.checks import require_axes, require_type
from loss_landscape.viewing.colour_scale import ColourScale
from loss_landscape.viewing.labels import axis_label, centre_label, notes_on, value_name, write_powers
from loss_landscape.viewing.theme import (
    BLUE,
    INK,
    ORANGE,
    PathLike,
    empty_figure,
    mark_not_finite,
    save_figure,
    set_notes,
    set_title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RING: dict[str, Any] = {"linestyle": "none", "markersize": 9, "markerfacecolor": "none", "color": INK}


def plot_line(path: PathLike, grid: Grid, *, title: str) -> Figure:
    """Draw the losses of a `grid` along one direction; cells that are not finite are marked on the lower edge.

    The ending of `path` chooses the format, `title` stands above. Raises TypeError for what is no grid, ValueError for one of
    more axes.

    >>> from loss_landscape.plot import plot_line
    >>> _ = plot_line("line.png", evaluate_grid(surface, torch.ones(2), 5), title="both weights at once")
    """
    return save_figure(path, line_figure(grid, title=title))


def line_figure(grid: Grid, *, title: str) -> Figure:
    """The figure of `plot_line`."""
    require_axes(grid, 1)
    scale = ColourScale.of(grid.losses)
    figure = empty_figure(6.2, 4.2)
    axes = figure.add_subplot()
    _draw_losses(axes, grid.coordinates[0], grid.losses, color=BLUE)
    if grid.centre_loss is not None:
        axes.plot([0.0], [grid.centre_loss], "o", label=centre_label(grid), **RING)
    mark_not_finite(axes, grid.coordinates[0][~np.isfinite(grid.losses)])
    _finish(axes, scale, value_name(grid), axis_label(grid, 0))
    write_powers(axes.xaxis, grid.coordinates[0])
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False)
    set_title(figure, title)
    set_notes(axes, notes_on(grid, scale), width=84)
    return figure


def plot_mode_curve(path: PathLike, straight: PathLosses, *, fitted: PathLosses | None = None, title: str) -> Figure:
    """Draw the losses between two nets over t: along the `straight` line, and along a curve `fitted` to be low.

    With one of them alone, any, the losses along it. The ending of `path` chooses the format, `title` stands above. Raises
    TypeError for what is no `PathLosses`.

    >>> from loss_landscape.plot import plot_mode_curve
    >>> curve = fit_bezier(surface, torch.zeros(2), torch.ones(2), steps=3)
    >>> straight, fitted = barrier(surface, torch.zeros(2), torch.ones(2)), path_losses(surface, curve)
    >>> _ = plot_mode_curve("curve.png", straight, fitted=fitted, title="from 0 to 1")
    """
    alone = fitted is None
    return save_figure(path, path_figure(straight, title=title) if alone else mode_curve_figure(straight, fitted, title=title))


def mode_curve_figure(straight: PathLosses, fitted: PathLosses, *, title: str) -> Figure:
    """The figure of `plot_mode_curve`."""
    for losses in (straight, fitted):
        require_type(losses, PathLosses)
    scale = ColourScale.of(straight.losses, fitted.losses)
    figure = empty_figure(6.2, 4.9)
    axes = figure.add_subplot()
    for losses, name, colour in ((straight, "straight line", ORANGE), (fitted, curve_name(fitted), BLUE)):
        label = f"{name}: highest {losses.highest:.3g}, barrier {losses.barrier:.3g}"
        _draw_losses(axes, losses.t, losses.losses, color=colour, label=label)
        mark_not_finite(axes, losses.t[~np.isfinite(losses.losses)])
    ends = [fitted.losses[0], fitted.losses[-1]]
    axes.plot([0.0, 1.0], ends, "o", label=f"the two nets: {ends[0]:.3g} and {ends[1]:.3g}", **RING)
    _finish(axes, scale, "loss", _way_label(straight))
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)  # inside it would lie on the curves
    set_title(figure, title)
    set_notes(axes, _notes_on_curves(straight, fitted), width=84)
    return figure


def path_figure(losses: PathLosses, *, title: str) -> Figure:
    """The losses along one curve over t."""
    require_type(losses, PathLosses)
    figure = empty_figure(6.2, 4.2)
    axes = figure.add_subplot()
    _draw_losses(axes, losses.t, losses.losses, color=BLUE)
    mark_not_finite(axes, losses.t[~np.isfinite(losses.losses)])
    _finish(axes, ColourScale.of(losses.losses), "loss", "t, from one net to the other")
    set_title(figure, title)
    set_notes(axes, [curve_name(losses), f"highest {losses.highest:.3g}", f"barrier {losses.barrier:.3g}"], width=84)
    return figure


def curve_name(losses: PathLosses) -> str:
    """A curve's kind, and how often it bends."""
    info = losses.info.directions
    name = {"bezier": "Bézier curve", "line": "straight line", "custom": "curve"}.get(info.kind, info.kind)
    bends = (info.num_control_points or 2) - 2
    return f"{name}, {bends} bend{'' if bends == 1 else 's'}" if bends else name


def _draw_losses(axes: Axes, places: np.ndarray, losses: np.ndarray, **more: Any) -> None:
    axes.plot(places, np.where(np.isfinite(losses), losses, np.nan), ".-", markersize=4, linewidth=1.4, **more)


def _finish(axes: Axes, scale: ColourScale, height: str, along: str) -> None:
    """Scale and name both axes."""
    if scale.logarithmic:
        axes.set_yscale("log")
    axes.set_ylabel(height)
    axes.set_xlabel(along)
    axes.grid(alpha=0.25)


def _way_label(straight: PathLosses) -> str:
    """What t is, and how long the straight way is beside ‖θ‖."""
    length, norm = straight.lengths[-1], straight.info.directions.origin_norm
    return "t, from one net to the other" + (f"\n(the straight way is {length / norm:.3g} ‖θ‖ long)" if norm else "")


def _notes_on_curves(straight: PathLosses, fitted: PathLosses) -> list[str]:
    """What fitting did to the barrier, and to the length of the way."""
    notes = [f"barrier {straight.barrier:.3g} before, {fitted.barrier:.3g} after"]
    if straight.lengths[-1]:
        notes.append(f"the curve is {fitted.lengths[-1] / straight.lengths[-1]:.3g} times as long")
    missing = sum(int((~np.isfinite(losses.losses)).sum()) for losses in (straight, fitted))
    return [*notes, f"not finite: {missing} points"] if missing else notes
