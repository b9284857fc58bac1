"""Pictures of lines, planes, volumes and spectra. Each function writes a file and returns the figure, kept by nothing else."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loss_landscape.files import write_whole
from loss_landscape.results.density import Density
from loss_landscape.results.grid import Grid
from loss_landscape.viewing.colour_scale import ColourScale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

    from loss_landscape.paths.connectivity import PathLosses

PathLike = str | Path
Point = Mapping[str, float]

INK, VERMILION, BLUE, ORANGE, SKY, GREEN, PURPLE = "#222222", "#D55E00", "#0072B2", "#E69F00", "#56B4E9", "#009E73", "#CC79A7"
"""Colours that colour-blind readers can tell apart (Okabe & Ito 2008); vermilion marks what is not finite."""

NOISE_MARGIN = 10.0
DECADES_OF_DENSITY = 8
MOST_SLICES = 5  # of a volume
AXIS_NAMES = {
    "random": ("random direction 1", "random direction 2", "random direction 3"),
    "hessian": ("Hessian eigenvector 1", "Hessian eigenvector 2"),
    "hessian_extremes": ("eigenvector of the largest λ", "eigenvector of the smallest λ"),
    "trajectory": ("principal direction 1", "principal direction 2", "principal direction 3"),
    "gradient": ("the gradient", "random direction 1", "random direction 2"),
    "adam": ("Adam's mean of the gradient", "Adam's mean of its square"),
    "three_points": ("the way to the second net", "the way to the third, at a right angle"),
    "difference": ("the way to the other net",),
}


def plot_plane_contour(path: PathLike, grid: Grid, *, title: str, trajectory: Sequence[Point] | None = None) -> Figure:
    """Draw a plane as a heat map with contour lines; the first direction runs to the right, the second upwards.

    `trajectory` is a list of {alpha, beta}, first to last; None takes the one in the grid's meta, where there is one.
    """
    scale = ColourScale.of(grid.losses)
    points = grid.meta.get("trajectory", []) if trajectory is None else trajectory
    figure = _empty_figure(6.2, 5.6, layout=None)  # fixed places: twice as fast as a computed layout
    axes = figure.add_axes((0.16, 0.18, 0.65, 0.68))
    mesh = draw_plane(axes, grid, scale)
    draw_trajectory(axes, points)
    _draw_nets(axes, grid.meta.get("points", []))
    add_colour_bar(figure, mesh, scale, _value_name(grid), cax=figure.add_axes((0.83, 0.18, 0.022, 0.68)))
    label_axes(axes, grid)
    figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=4, fontsize=8, frameon=False)
    _set_titles(figure, axes, title, [*notes_on(grid, scale), *_notes_on_path(grid, points)])
    return save_figure(path, figure)


def plot_plane_surface(path: PathLike, grid: Grid, *, title: str) -> Figure:
    """Draw a plane as a surface in three dimensions; its height is log₁₀ of the loss where the loss spans decades."""
    scale = ColourScale.of(grid.losses)
    norm = _norm(scale)
    figure = _empty_figure(6.2, 5.6, layout=None)
    axes = figure.add_axes((0.03, 0.04, 0.87, 0.84), projection="3d", computed_zorder=False)
    shown = np.clip(np.where(np.isfinite(grid.losses), grid.losses, np.nan), norm.vmin, norm.vmax)
    heights, ends = (np.log10(z) if scale.logarithmic else z for z in (shown, np.array([norm.vmin, norm.vmax])))
    first, second = np.meshgrid(*grid.coordinates, indexing="ij")
    edges = {"edgecolor": (0, 0, 0, 0.18), "linewidth": 0.25}
    axes.plot_surface(first, second, heights, facecolors=_colours()(norm(shown)), shade=False, rcount=41, ccount=41, **edges)
    axes.set_zlim(*ends)
    bad = ~np.isfinite(grid.losses)
    if bad.any():
        cross = {"color": VERMILION, "marker": "x", "s": 12, "label": "not finite", "depthshade": False}
        axes.scatter(first[bad], second[bad], ends[0], zorder=0, **cross)  # on the floor, beneath the surface
        axes.legend(loc="upper left", fontsize=8, frameon=False)
    _label_surface(axes, grid, f"log₁₀ of the {_value_name(grid)}" if scale.logarithmic else _value_name(grid))
    _set_titles(figure, axes, title, [_centre(grid), *notes_on(grid, scale)])
    return save_figure(path, figure)


def plot_line(path: PathLike, grid: Grid, *, title: str) -> Figure:
    """Draw the losses along one direction; cells that are not finite are marked on the lower edge."""
    scale = ColourScale.of(grid.losses)
    figure = _empty_figure(6.2, 4.2)
    axes = figure.add_subplot()
    (places,), finite = grid.coordinates, np.isfinite(grid.losses)
    axes.plot(places, np.where(finite, grid.losses, np.nan), ".-", color=BLUE, markersize=4, linewidth=1.4)
    axes.plot([0.0], [grid.meta["baseline_loss"]], "o", markersize=9, markerfacecolor="none", color=INK, label=_centre(grid))
    _mark_not_finite(axes, places[~finite])
    if scale.logarithmic:
        axes.set_yscale("log")
    axes.set_ylabel(_value_name(grid))
    axes.set_xlabel(axis_label(grid, 0))
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11, fontweight="bold")
    _set_notes(axes, notes_on(grid, scale), width=84)
    return save_figure(path, figure)


def plot_mode_curve(path: PathLike, straight: PathLosses, fitted: PathLosses, *, title: str) -> Figure:
    """Draw the losses between two nets over t: along the straight line, and along a curve fitted to be low."""
    scale = ColourScale.of(straight.losses, fitted.losses)
    figure = _empty_figure(6.2, 4.9)
    axes = figure.add_subplot()
    for losses, name, colour in ((straight, "straight line", ORANGE), (fitted, _curve_name(fitted), BLUE)):
        finite = np.isfinite(losses.losses)
        label = f"{name}: highest {losses.highest:.3g}, barrier {losses.barrier:.3g}"
        axes.plot(losses.t, np.where(finite, losses.losses, np.nan), ".-", color=colour, markersize=4, linewidth=1.4, label=label)
        _mark_not_finite(axes, losses.t[~finite])
    ends = [fitted.losses[0], fitted.losses[-1]]
    marker = {"linestyle": "none", "markersize": 9, "markerfacecolor": "none", "color": INK}
    axes.plot([0.0, 1.0], ends, "o", label=f"the two nets: {ends[0]:.3g} and {ends[1]:.3g}", **marker)
    if scale.logarithmic:
        axes.set_yscale("log")
    axes.set_ylabel("loss")
    axes.set_xlabel(_way_label(straight))
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)  # inside it would lie on the curves
    figure.suptitle(title, fontsize=11, fontweight="bold")
    _set_notes(axes, _notes_on_curves(straight, fitted), width=84)
    return save_figure(path, figure)


def _curve_name(losses: PathLosses) -> str:
    bends = losses.meta["num_bends"]
    name = {"bezier": "Bézier curve", "polychain": "polychain"}.get(losses.meta["kind"], losses.meta["kind"])
    return f"{name}, {bends} bend{'s' * (bends != 1)}"


def _way_label(straight: PathLosses) -> str:
    """What t is, and how long the straight way is beside ‖θ‖."""
    length, norm = straight.lengths[-1], straight.meta["origin_norm"]
    return "t, from one net to the other" + (f"\n(the straight way is {length / norm:.3g} ‖θ‖ long)" if norm else "")


def _notes_on_curves(straight: PathLosses, fitted: PathLosses) -> list[str]:
    """What fitting did to the barrier, and to the length of the way."""
    notes = [f"barrier {straight.barrier:.3g} before, {fitted.barrier:.3g} after"]
    if straight.lengths[-1]:
        notes.append(f"the curve is {fitted.lengths[-1] / straight.lengths[-1]:.3g} times as long")
    missing = sum(int((~np.isfinite(losses.losses)).sum()) for losses in (straight, fitted))
    return notes + [f"not finite: {missing} points"] * (missing > 0)


def _mark_not_finite(axes: Axes, places: np.ndarray) -> None:
    """Crosses on the lower edge of a line's picture."""
    if len(places):
        marks = {"color": VERMILION, "transform": axes.get_xaxis_transform(), "clip_on": False, "label": "not finite"}
        axes.plot(places, np.zeros(len(places)), "x", **marks)


def plot_volume(path: PathLike, grid: Grid, *, title: str) -> Figure:
    """Draw a volume as up to five slices across its third direction, each as a plane is drawn, all on one colour scale."""
    scale, heights = ColourScale.of(grid.losses), grid.coordinates[2]
    chosen = np.unique(np.linspace(0, len(heights) - 1, MOST_SLICES).round().astype(int))
    figure = _empty_figure(2.4 * len(chosen) + 1.6, 4.2)
    panels = figure.subplots(1, len(chosen), squeeze=False, sharey=True)[0]
    for axes, index in zip(panels, chosen, strict=True):
        mesh = _draw_cells(axes, Grid(grid.losses[:, :, index], grid.coordinates[:2], grid.meta), scale)
        if heights[index] == 0:
            _mark_centre(axes, grid)
        axes.set_title(f"γ = {heights[index]:.3g}", fontsize=9)
        axes.tick_params(labelsize=8)
    panels[0].set_ylabel(axis_label(grid, 1), fontsize=8)
    add_colour_bar(figure, mesh, scale, _value_name(grid), ax=list(panels), pad=0.01)
    labels = [axis_label(grid, axis).replace("\n", " ") for axis in (0, 2)]
    notes = textwrap.fill(" · ".join([_centre(grid), *notes_on(grid, scale)]), 30 * len(chosen))
    figure.supxlabel("\n".join([*labels, notes]), fontsize=8.5)
    figure.suptitle(title, fontsize=11, fontweight="bold")
    return save_figure(path, figure)


def plot_sam_surface(path: PathLike, grid: Grid, *, title: str) -> Figure:
    """Draw a plane of losses after an ascent step, as `plot_plane_contour` does."""
    return plot_plane_contour(path, grid, title=title)


def plot_sam_comparison(path: PathLike, plain: Grid, sam: Grid, *, title: str) -> Figure:
    """Draw the plain and the SAM plane side by side on one colour scale, and their difference on the cells they share."""
    scale = ColourScale.of(plain.losses, sam.losses)
    rise = _rise(plain, sam)
    figure = _empty_figure(13.0 if rise else 9.0, 4.4)
    panels = figure.subplots(1, 3 if rise else 2, squeeze=False)[0]
    for axes, grid in zip(panels, (plain, sam), strict=False):
        mesh = draw_plane(axes, grid, scale)
        label_axes(axes, grid)
        _set_notes(axes, [_value_name(grid), _centre(grid), *notes_on(grid, scale)], width=56)
    add_colour_bar(figure, mesh, scale, "loss, one scale for both", ax=list(panels[:2]))
    if rise:
        own = ColourScale.of(rise.losses)
        add_colour_bar(figure, draw_plane(panels[2], rise, own), own, "rise of the loss", ax=panels[2])
        label_axes(panels[2], rise)
        _set_notes(panels[2], ["the second less the first", _centre(rise), *notes_on(rise, own)], width=56)
    figure.suptitle(title, fontsize=11, fontweight="bold")
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
    errors = [grid.meta.get("noise_floor") for grid in (plain, sam)]
    facts = {
        "baseline_loss": sam.meta["baseline_loss"] - plain.meta["baseline_loss"],
        "noise_floor": None if None in errors else sum(errors),
        "largest_held_out_error": None,  # of a difference it is not known
    }
    return Grid(rise, sam.coordinates, {**sam.meta, **facts}, sam.evaluated & plain.evaluated[shared])


def plot_spectrum(path: PathLike, density: Density, *, title: str, eigenvalues: Sequence[float] | None = None) -> Figure:
    """Draw the spectral density over λ, and the shares of positive and negative eigenvalues over log |λ|.

    `eigenvalues` are marked below the density: those that an eigensolver found one by one.
    """
    figure = _empty_figure(9.6, 4.2, layout=None)
    figure.suptitle(title, fontsize=11, fontweight="bold")
    nodes, weights = density.nodes.cpu().numpy(), density.weights.cpu().numpy()
    if not np.isfinite(nodes).all():
        figure.text(0.5, 0.5, "the curvature is not finite", ha="center", color=VERMILION)
        return save_figure(path, figure)
    left, right = figure.subplots(1, 2, gridspec_kw={"left": 0.08, "right": 0.985, "bottom": 0.12, "top": 0.87, "wspace": 0.2})
    marks = np.array([value for value in eigenvalues or [] if np.isfinite(value)])
    _draw_density(left, density, np.concatenate([nodes[weights > 0], marks]), marks)
    _draw_tails(right, nodes, weights / len(weights), density.zero)
    trace, negative = density.trace, density.negative_mass
    total = f"trace by quadrature {trace.value:.4g} ± {trace.standard_error:.2g}"
    smoothing = f"smoothed by σ = {density.default_sigma:.2g}"
    _set_notes(left, [total, f"{len(nodes)} probes of {nodes.shape[1]} steps", smoothing], width=76)
    rounding = f"{(weights * (np.abs(nodes) <= density.zero)).sum() / len(weights):.3g} within {density.zero:.1g} of 0"
    _set_notes(right, [f"share below 0: {negative.value:.3g} ± {negative.standard_error:.1g}", rounding], width=76)
    return save_figure(path, figure)


def _draw_density(axes: Axes, density: Density, places: np.ndarray, marks: np.ndarray) -> None:
    """The smoothed density over all of `places`, with `marks` as ticks along the lower edge."""
    margin = 4 * density.default_sigma
    x = np.linspace(places.min() - margin, places.max() + margin, 1500)
    y = density.density(x).cpu().numpy()
    lowest = y.max() * 10.0**-DECADES_OF_DENSITY
    axes.fill_between(x, y, lowest, where=y > lowest, color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(x, y, color=BLUE, linewidth=1.0)
    if len(marks):
        edge, label = axes.get_xaxis_transform(), "found by the eigensolver"
        axes.plot(marks, np.full(len(marks), 0.04), "|", color=VERMILION, markersize=14, transform=edge, label=label)
        axes.legend(fontsize=8, frameon=False)
    axes.axvline(0.0, color=INK, linewidth=0.6, alpha=0.5)
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.set(ylim=(lowest, y.max() * 3), xlabel="eigenvalue λ", ylabel="density")


def _draw_tails(axes: Axes, nodes: np.ndarray, shares: np.ndarray, zero: float) -> None:
    """Histograms of the share of eigenvalues by log₁₀ |λ|, one for each sign; those that count as 0 are left out."""
    axes.set(xscale="log", yscale="log", xlabel="|λ|", ylabel="share of the eigenvalues")
    axes.minorticks_off()
    sizes = np.abs(nodes)
    used = (shares > 0) & (sizes > zero)
    if not used.any():
        return
    edges = np.geomspace(sizes[used].min() * 0.95, sizes[used].max() * 1.05, 41)
    for sign, colour, name in ((1, BLUE, "λ > 0"), (-1, ORANGE, "λ < 0")):
        chosen = used & (np.sign(nodes) == sign)
        heights, _ = np.histogram(sizes[chosen], edges, weights=shares[chosen])
        label = f"{name}: {shares[chosen].sum():.3g} of all"
        axes.stairs(heights, edges, fill=True, color=colour, alpha=0.3)
        axes.stairs(heights, edges, color=colour, label=label)
    axes.legend(fontsize=8, frameon=False)


def draw_plane(axes: Axes, grid: Grid, scale: ColourScale) -> QuadMesh:
    """Put a plane's heat map, contour lines, centre and cells that are not finite into `axes`."""
    mesh = _draw_cells(axes, grid, scale)
    _mark_centre(axes, grid)
    if not np.isfinite(grid.losses).all():
        axes.plot([], [], "s", color=VERMILION, label="not finite", linestyle="none")
    return mesh


def _draw_cells(axes: Axes, grid: Grid, scale: ColourScale) -> QuadMesh:
    first, second = grid.coordinates
    shown = np.ma.masked_invalid(grid.losses.T)  # a picture's rows lie along its vertical axis, the second direction
    mesh = axes.pcolormesh(first, second, shown, cmap=_colours(), norm=_norm(scale), shading="nearest", rasterized=True)
    if not scale.is_flat and shown.count() > 3:
        lines = {"colors": "white", "linewidths": 0.5, "alpha": 0.6, "linestyles": "solid"}
        axes.contour(first, second, shown, levels=scale.levels(9), **lines)
    return mesh


def _mark_centre(axes: Axes, grid: Grid) -> None:
    axes.plot([0.0], [0.0], "+", color="white", markersize=13, markeredgewidth=4)
    axes.plot([0.0], [0.0], "+", color="black", markersize=12, markeredgewidth=1.5, label=_centre(grid), linestyle="none")


def draw_trajectory(axes: Axes, points: Sequence[Point]) -> None:
    """Lay a path of {alpha, beta} over a plane without moving the plane's limits; its start and end are marked."""
    if not points:
        return
    alpha, beta = ([point[name] for point in points] for name in ("alpha", "beta"))
    limits = axes.get_xlim(), axes.get_ylim()
    axes.plot(alpha, beta, "-", color="black", linewidth=2.6)
    axes.plot(alpha, beta, ".-", color="white", linewidth=1.2, markersize=6, markeredgecolor="black", markeredgewidth=0.5)
    marker = {"color": "white", "markeredgecolor": "black", "linestyle": "none"}
    axes.plot(alpha[0], beta[0], "o", markersize=8, label="start of the path", **marker)
    axes.plot(alpha[-1], beta[-1], "*", markersize=13, label="its end", **marker)
    axes.set(xlim=limits[0], ylim=limits[1])


def _draw_nets(axes: Axes, points: Sequence[Point]) -> None:
    """Number the nets that a plane was laid through."""
    limits = axes.get_xlim(), axes.get_ylim()
    for number, point in enumerate(points, start=1):
        marker = {"color": "white", "markeredgecolor": "black", "linestyle": "none"}
        axes.plot(point["alpha"], point["beta"], "o", markersize=12, **marker)
        place = {"horizontalalignment": "center", "verticalalignment": "center_baseline", "clip_on": True}
        axes.text(point["alpha"], point["beta"], str(number), fontsize=8, **place)
    axes.set(xlim=limits[0], ylim=limits[1])


def add_colour_bar(figure: Figure, mesh: QuadMesh, scale: ColourScale, label: str, **place: Any) -> None:
    """Put a colour bar into `cax`, or beside the axes `ax`; its upper end is pointed where losses above it were cut."""
    bar = figure.colorbar(mesh, extend="max" if scale.clipped else "neither", label=label, **place)
    bar.ax.tick_params(labelsize=8)
    bar.ax.yaxis.get_offset_text().set(size=8, horizontalalignment="left")  # else it stands in the notes


def label_axes(axes: Axes, grid: Grid) -> None:
    axes.set_xlabel(axis_label(grid, 0), fontsize=9)
    axes.set_ylabel(axis_label(grid, 1), fontsize=9)
    axes.tick_params(labelsize=8)


def _label_surface(axes: Any, grid: Grid, height: str) -> None:
    axes.set_xlabel(axis_label(grid, 0), fontsize=8, labelpad=8)
    axes.set_ylabel(axis_label(grid, 1), fontsize=8, labelpad=8)
    axes.set_zlabel(height, fontsize=8)
    axes.locator_params(nbins=5)
    axes.tick_params(labelsize=7, pad=1)
    axes.view_init(elev=32, azim=-58)


def axis_label(grid: Grid, axis: int) -> str:
    """What an axis is, and how long one unit of it is beside ‖θ‖."""
    meta = grid.meta
    name = AXIS_NAMES[meta["kind"]][axis] if meta["kind"] in AXIS_NAMES else f"direction {axis + 1}"
    facts = [f"λ = {meta['eigenvalues'][axis]:.3g}"] if "eigenvalues" in meta else []
    facts += [f"one unit is {meta['direction_norms'][axis] / meta['origin_norm']:.3g} ‖θ‖"] if meta["origin_norm"] else []
    return f"{'αβγ'[axis]} along {name}\n({', '.join(facts)})" if facts else f"{'αβγ'[axis]} along {name}"


def notes_on(grid: Grid, scale: ColourScale) -> list[str]:
    """What a reader must know of a grid before trusting its picture."""
    finite = grid.losses[np.isfinite(grid.losses)]
    missing, spread = grid.losses.size - finite.size, np.ptp(finite) if finite.size else np.inf
    noise = grid.meta.get("noise_floor")
    notes = [f"not finite: {missing} of {grid.losses.size} cells"] if missing else []
    notes += _notes_on_prediction(grid)
    if scale.clipped:
        notes.append(f"colours end at {scale.high:.3g}, the highest cell is {finite.max():.3g}")
    if spread == 0:
        notes.append("constant")
    elif noise is not None and spread <= NOISE_MARGIN * noise:
        notes.append(f"mostly rounding: the range {spread:.2g} is within ten times of the float noise {noise:.2g}")
    return notes


def _notes_on_prediction(grid: Grid) -> list[str]:
    """How much of a grid was evaluated, where some was predicted or was to be."""
    count, error = int(grid.evaluated.sum()), grid.meta.get("largest_held_out_error")
    if count == grid.losses.size:
        return ["every cell evaluated: none could be predicted within the tolerance"] if grid.meta.get("tolerance") else []
    checked = "" if error is None else f" (to {100 * error:.2g} % where checked)"
    return [f"{count} of {grid.losses.size} cells evaluated, the rest predicted{checked}"]


def _notes_on_path(grid: Grid, points: Sequence[Point]) -> list[str]:
    """How much of a path the plane shows."""
    (left, right), (bottom, top) = ((axis.min(), axis.max()) for axis in grid.coordinates)
    outside = sum(not (left <= point["alpha"] <= right and bottom <= point["beta"] <= top) for point in points)
    notes = [f"{outside} of the path's {len(points)} points are outside"] if outside else []
    if "explained_variance" in grid.meta:
        shares = " and ".join(f"{share:.1%}" for share in grid.meta["explained_variance"])
        notes.append(f"the axes hold {shares} of the path's variance")
    distances = [point["residual"] for point in points if "residual" in point]
    if distances and grid.meta["origin_norm"]:
        notes.append(f"the path leaves the plane by up to {max(distances) / grid.meta['origin_norm']:.2g} ‖θ‖")
    return notes


def _value_name(grid: Grid) -> str:
    if "rho_absolute" in grid.meta:
        return f"loss after an ascent of ρ = {grid.meta['rho_absolute']:.3g}"
    return "loss"


def _centre(grid: Grid) -> str:
    return f"centre: {grid.meta['baseline_loss']:.4g}"


def save_figure(path: PathLike, figure: Figure) -> Figure:
    """Write a figure, whole or not at all; the file's ending chooses its format."""
    write_whole(Path(path), lambda beside: figure.savefig(beside, dpi=120))
    return figure


def _empty_figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)  # no pyplot: it would keep every figure of a long run


def _set_titles(figure: Figure, axes: Axes, title: str, notes: Sequence[str]) -> None:
    """The title above the notes above axes of a fixed place."""
    _set_notes(axes, notes, width=84)
    points = 10 + 12.5 * len(axes.get_title().splitlines())
    y = axes.get_position().y1 + points / 72 / figure.get_figheight()
    figure.suptitle(title, y=y, verticalalignment="bottom", fontsize=11, fontweight="bold")


def _set_notes(axes: Axes, notes: Sequence[str], width: int) -> None:
    axes.set_title(textwrap.fill(" · ".join(notes), width), fontsize=8.5)


def _colours() -> Colormap:
    from matplotlib import colormaps

    return colormaps["viridis"].with_extremes(bad=VERMILION, under="#160020", over="#FFFFC8")


def _norm(scale: ColourScale) -> Normalize:
    """The scale for matplotlib; a flat one is opened a little, so that it lies in the middle of the colours."""
    from matplotlib.colors import LogNorm, Normalize

    if scale.logarithmic:
        return LogNorm(scale.low, scale.high)
    margin = (0.1 * abs(scale.low) or 1.0) if scale.is_flat else 0.0
    return Normalize(scale.low - margin, scale.high + margin)
