"""Pictures of planes and volumes: heat maps with contour lines, surfaces in three dimensions, slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from loss_landscape.results.grid import Grid
from loss_landscape.viewing.checks import require_axes
from loss_landscape.viewing.colour_scale import ColourScale
from loss_landscape.viewing.labels import (
    Point,
    axis_label,
    centre_label,
    centre_notes,
    label_axes,
    notes_on,
    notes_on_trajectory,
    points_of,
    value_name,
    write_powers,
)
from loss_landscape.viewing.theme import (
    VERMILION,
    PathLike,
    colormap,
    empty_figure,
    in_lines,
    save_figure,
    set_notes,
    set_title,
    set_title_above,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

MAX_SLICES = 5  # of a volume
SPOT: dict[str, Any] = {"color": "white", "markeredgecolor": "black", "linestyle": "none"}


def plot_plane_contour(path: PathLike, grid: Grid, *, title: str, trajectory: Sequence[Point] | None = None) -> Figure:
    """Draw a plane `grid` as a heat map with contour lines; the first direction runs to the right, the second upwards.

    The ending of `path` chooses the format, `title` stands above. `trajectory` is a list of {alpha, beta}, in units of the
    directions, first to last; None takes the one in the grid's info, where there is one. Raises TypeError for what is no grid,
    ValueError for one of other than two axes.

    >>> from loss_landscape.plot import plot_plane_contour
    >>> _ = plot_plane_contour("contour.png", evaluate_grid(surface, torch.eye(2), 5), title="both weights")
    """
    return save_figure(path, contour_figure(grid, title=title, trajectory=trajectory))


def contour_figure(grid: Grid, *, title: str, trajectory: Sequence[Point] | None = None) -> Figure:
    """The figure of `plot_plane_contour`."""
    require_axes(grid, 2)
    scale = ColourScale.of(grid.losses)
    points = points_of(grid.info.directions.trajectory) if trajectory is None else trajectory
    figure = empty_figure(6.2, 5.6, layout=None)  # fixed places: twice as fast as a computed layout
    axes = figure.add_axes((0.16, 0.18, 0.65, 0.68))
    mesh = draw_plane(axes, grid, scale)
    draw_trajectory(axes, points)
    _draw_nets(axes, points_of(grid.info.directions.points))
    add_colour_bar(figure, mesh, scale, value_name(grid), cax=figure.add_axes((0.83, 0.18, 0.022, 0.68)))
    label_axes(axes, grid)
    figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=4, fontsize=8, frameon=False)
    set_notes(axes, [*notes_on(grid, scale), *notes_on_trajectory(grid, points)], width=84)
    set_title_above(figure, title, axes)
    return figure


def plot_plane_surface(path: PathLike, grid: Grid, *, title: str) -> Figure:
    """Draw a plane `grid` as a surface in three dimensions; its height is log₁₀ of the loss where the loss spans decades.

    `path`, `title` and what is raised are as in `plot_plane_contour`.

    >>> from loss_landscape.plot import plot_plane_surface
    >>> _ = plot_plane_surface("surface.png", evaluate_grid(surface, torch.eye(2), 5), title="both weights")
    """
    require_axes(grid, 2)
    scale = ColourScale.of(grid.losses)
    norm = scale.norm()
    figure = empty_figure(6.2, 5.6, layout=None)
    axes = figure.add_axes((0.03, 0.04, 0.87, 0.84), projection="3d", computed_zorder=False)
    shown = np.clip(np.where(np.isfinite(grid.losses), grid.losses, np.nan), norm.vmin, norm.vmax)
    heights, ends = (np.log10(z) if scale.logarithmic else z for z in (shown, np.array([norm.vmin, norm.vmax])))
    first, second = np.meshgrid(*grid.coordinates, indexing="ij")
    edges = {"edgecolor": (0, 0, 0, 0.18), "linewidth": 0.25}
    axes.plot_surface(first, second, heights, facecolors=colormap()(norm(shown)), shade=False, rcount=41, ccount=41, **edges)
    axes.set_zlim(*ends)
    bad = ~np.isfinite(grid.losses)
    if bad.any():
        cross = {"color": VERMILION, "marker": "x", "s": 12, "label": "not finite", "depthshade": False}
        axes.scatter(first[bad], second[bad], ends[0], zorder=0, **cross)  # on the floor, beneath the surface
        axes.legend(loc="upper left", fontsize=8, frameon=False)
    _label_surface(axes, grid, f"log₁₀ of the {value_name(grid)}" if scale.logarithmic else value_name(grid))
    set_notes(axes, [*centre_notes(grid), *notes_on(grid, scale)], width=84)
    set_title_above(figure, title, axes)
    return save_figure(path, figure)


def plot_sam_contour(path: PathLike, grid: Grid, *, title: str) -> Figure:
    """Draw a plane `grid` of losses after an ascent step, as `plot_plane_contour` does, with `path` and `title` as there.

    >>> from loss_landscape.plot import plot_sam_contour
    >>> _ = plot_sam_contour("sam.png", evaluate_grid(surface, torch.eye(2), 5, rho=0.1), title="one step uphill")
    """
    return plot_plane_contour(path, grid, title=title)


def plot_sam_comparison(path: PathLike, plain: Grid, *, sam: Grid, title: str) -> Figure:
    """Draw the `plain` and the `sam` plane side by side on one colour scale, and their difference on the cells they share.

    `path`, `title` and what is raised are as in `plot_plane_contour`.

    >>> from loss_landscape.plot import plot_sam_comparison
    >>> plain, sam = (evaluate_grid(surface, torch.eye(2), 5, rho=rho) for rho in (None, 0.1))
    >>> _ = plot_sam_comparison("comparison.png", plain, sam=sam, title="one step uphill")
    """
    for grid in (plain, sam):
        require_axes(grid, 2)
    scale, rise = ColourScale.of(plain.losses, sam.losses), _rise(plain, sam)
    figure = empty_figure(13.0 if rise else 9.0, 4.4)
    panels = figure.subplots(1, 3 if rise else 2, squeeze=False)[0]
    for axes, grid in zip(panels, (plain, sam), strict=False):
        mesh = draw_plane(axes, grid, scale)
        label_axes(axes, grid)
        set_notes(axes, [value_name(grid), *centre_notes(grid), *notes_on(grid, scale)], width=56)
    add_colour_bar(figure, mesh, scale, "loss, one scale for both", ax=list(panels[:2]))
    if rise:
        own = ColourScale.of(rise.losses)
        add_colour_bar(figure, draw_plane(panels[2], rise, own), own, "rise of the loss", ax=panels[2])
        label_axes(panels[2], rise)
        set_notes(panels[2], ["the second less the first", *centre_notes(rise), *notes_on(rise, own)], width=56)
    set_title(figure, title)
    return save_figure(path, figure)


def _rise(plain: Grid, sam: Grid) -> Grid | None:
    """SAM loss minus plain loss on the SAM grid's cells, or None where the plain grid lacks one of them."""
    pairs = list(zip(plain.coordinates, sam.coordinates, strict=True))
    places = [np.abs(many[:, None] - few).argmin(axis=0) for many, few in pairs]
    if not all(np.allclose(many[at], few, rtol=0, atol=1e-9) for (many, few), at in zip(pairs, places, strict=True)):
        return None
    shared = np.ix_(*places)
    with np.errstate(invalid="ignore"):  # inf − inf is the NaN that it should be
        rise = sam.losses - plain.losses[shared]
    ends = [loss for loss in (sam.info.baseline_loss, plain.info.baseline_loss) if loss is not None]
    floors = [floor for floor in (sam.info.noise.floor, plain.info.noise.floor) if floor is not None]
    info = replace(
        sam.info,
        baseline_loss=ends[0] - ends[1] if len(ends) == 2 else None,
        noise=replace(sam.info.noise, floor=sum(floors) if len(floors) == 2 else None),
        largest_held_out_error=None,  # of a difference it is not known
    )
    return replace(sam, losses=rise, info=info, evaluated=sam.evaluated & plain.evaluated[shared])


def plot_volume(path: PathLike, grid: Grid, *, title: str) -> Figure:
    """Draw a volume `grid` as up to five slices across its third direction, each as a plane is drawn, all on one colour scale.

    `path` and `title` are as in `plot_plane_contour`. Raises TypeError for what is no grid, ValueError for one of other than
    three axes.

    >>> from loss_landscape.plot import plot_volume
    >>> axis = [-1.0, 0.0, 1.0]
    >>> _ = plot_volume("volume.png", Grid([[[1.0, 0.0, 1.0]] * 3] * 3, (axis, axis, axis)), title="by hand")
    """
    return save_figure(path, volume_figure(grid, title=title))


def volume_figure(grid: Grid, *, title: str) -> Figure:
    """The figure of `plot_volume`."""
    require_axes(grid, 3)
    scale, heights = ColourScale.of(grid.losses), grid.coordinates[2]
    chosen = np.unique(np.linspace(0, len(heights) - 1, MAX_SLICES).round().astype(int))
    figure = empty_figure(2.4 * len(chosen) + 1.6, 4.2)
    panels = figure.subplots(1, len(chosen), squeeze=False, sharey=True)[0]
    for axes, index in zip(panels, chosen, strict=True):
        mesh = _draw_cells(axes, grid.coordinates[:2], grid.losses[:, :, index], scale)
        if heights[index] == 0:
            _mark_centre(axes, grid)
        axes.set_title(f"γ = {heights[index]:.3g}", fontsize=9)
        axes.tick_params(labelsize=8)
    panels[0].set_ylabel(axis_label(grid, 1), fontsize=8)
    add_colour_bar(figure, mesh, scale, value_name(grid), ax=list(panels), pad=0.01)
    labels = [axis_label(grid, axis).replace("\n", " ") for axis in (0, 2)]
    notes = in_lines([*centre_notes(grid), *notes_on(grid, scale)], 30 * len(chosen))
    figure.supxlabel("\n".join([*labels, notes]), fontsize=8.5)
    set_title(figure, title)
    return figure


def draw_plane(axes: Axes, grid: Grid, scale: ColourScale) -> QuadMesh:
    """Put a plane's heat map, contour lines, centre and cells that are not finite into `axes`."""
    mesh = _draw_cells(axes, grid.coordinates, grid.losses, scale)
    _mark_centre(axes, grid)
    if not np.isfinite(grid.losses).all():
        axes.plot([], [], "s", color=VERMILION, label="not finite", linestyle="none")
    return mesh


def _draw_cells(axes: Axes, coordinates: Sequence[np.ndarray], losses: np.ndarray, scale: ColourScale) -> QuadMesh:
    first, second = coordinates
    shown = np.ma.masked_invalid(losses.T)  # a picture's rows lie along its vertical axis, the second direction
    mesh = axes.pcolormesh(first, second, shown, cmap=colormap(), norm=scale.norm(), shading="nearest", rasterized=True)
    if not scale.is_flat and shown.count() > 3 and min(shown.shape) > 1:
        lines = {"colors": "white", "linewidths": 0.5, "alpha": 0.6, "linestyles": "solid"}
        axes.contour(first, second, shown, levels=scale.levels(9), **lines)
    return mesh


def _mark_centre(axes: Axes, grid: Grid) -> None:
    """A cross at the origin, unless a grid that knows no loss there lies beside it."""
    if grid.centre_loss is None and not all(axis.min() <= 0 <= axis.max() for axis in grid.coordinates):
        return
    axes.plot([0.0], [0.0], "+", color="white", markersize=13, markeredgewidth=4)
    axes.plot([0.0], [0.0], "+", color="black", markersize=12, markeredgewidth=1.5, label=centre_label(grid), linestyle="none")


def draw_trajectory(axes: Axes, points: Sequence[Point]) -> None:
    """Lay a path of {alpha, beta} over a plane without moving the plane's limits; its start and end are marked."""
    if not points:
        return
    alpha, beta = ([point[name] for point in points] for name in ("alpha", "beta"))
    limits = axes.get_xlim(), axes.get_ylim()
    axes.plot(alpha, beta, "-", color="black", linewidth=2.6)
    axes.plot(alpha, beta, ".-", color="white", linewidth=1.2, markersize=6, markeredgecolor="black", markeredgewidth=0.5)
    axes.plot(alpha[0], beta[0], "o", markersize=8, label="start of the path", **SPOT)
    axes.plot(alpha[-1], beta[-1], "*", markersize=13, label="its end", **SPOT)
    axes.set(xlim=limits[0], ylim=limits[1])


def _draw_nets(axes: Axes, points: Sequence[Point]) -> None:
    """Number the nets that a plane was laid through."""
    limits = axes.get_xlim(), axes.get_ylim()
    for number, point in enumerate(points, start=1):
        axes.plot(point["alpha"], point["beta"], "o", markersize=12, **SPOT)
        place = {"horizontalalignment": "center", "verticalalignment": "center_baseline", "clip_on": True}
        axes.text(point["alpha"], point["beta"], str(number), fontsize=8, **place)
    axes.set(xlim=limits[0], ylim=limits[1])


def add_colour_bar(figure: Figure, mesh: QuadMesh, scale: ColourScale, label: str, **place: Any) -> None:
    """Put a colour bar into `cax`, or beside the axes `ax`; its upper end is pointed where losses above it were cut."""
    bar = figure.colorbar(mesh, extend="max" if scale.clipped else "neither", label=label, **place)
    bar.ax.tick_params(labelsize=8)
    bar.ax.yaxis.get_offset_text().set(size=8, horizontalalignment="left")  # else it stands in the notes


def _label_surface(axes: Any, grid: Grid, height: str) -> None:
    axes.set_xlabel(axis_label(grid, 0), fontsize=8, labelpad=8)
    axes.set_ylabel(axis_label(grid, 1), fontsize=8, labelpad=8)
    axes.set_zlabel(height, fontsize=8)
    axes.locator_params(nbins=5)
    for axis, coordinates in ((axes.xaxis, grid.coordinates[0]), (axes.yaxis, grid.coordinates[1])):
        write_powers(axis, coordinates)
    axes.tick_params(labelsize=7, pad=1)
    axes.view_init(elev=32, azim=-58)
