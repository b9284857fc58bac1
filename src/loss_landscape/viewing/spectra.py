"""Pictures of spectra: the density of all eigenvalues, and those that were found one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from loss_landscape.results.density import Density
from loss_landscape.results.eigenpairs import Eigenpairs
from loss_landscape.viewing.checks import require_type
from loss_landscape.viewing.labels import write_powers
from loss_landscape.viewing.theme import (
    BLUE,
    INK,
    ORANGE,
    VERMILION,
    PathLike,
    empty_figure,
    mark_not_finite,
    save_figure,
    set_notes,
    set_title,
    set_title_above,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DECADES_OF_DENSITY = 8
MARGINS = {"left": 0.08, "right": 0.985, "bottom": 0.12, "top": 0.82, "wspace": 0.2}
WIDTH_OF_NOTES = 64  # characters above one of two pictures


def plot_spectrum(path: PathLike, density: Density, *, title: str, eigenvalues: Sequence[float] | None = None) -> Figure:
    """Draw the spectral `density` over λ, and the shares of positive and negative eigenvalues over log |λ|.

    `eigenvalues` are marked below the density: those that an eigensolver found one by one. The ending of `path` chooses the
    format, `title` stands above. Raises TypeError for what is no `Density`.

    >>> from loss_landscape.plot import plot_spectrum
    >>> density = spectral_density(HessianOperator(surface))
    >>> _ = plot_spectrum("spectrum.png", density, title="of two weights", eigenvalues=[4.0, 1.0])
    """
    return save_figure(path, spectrum_figure(density, title=title, eigenvalues=eigenvalues))


def spectrum_figure(density: Density, *, title: str, eigenvalues: Sequence[float] | None = None) -> Figure:
    """The figure of `plot_spectrum`."""
    require_type(density, Density)
    figure = empty_figure(9.6, 4.4, layout=None)
    nodes, weights = density.nodes.cpu().numpy(), density.weights.cpu().numpy()
    if not np.isfinite(nodes).all():
        set_title(figure, title)
        figure.text(0.5, 0.5, "the curvature is not finite", ha="center", color=VERMILION)
        return figure
    left, right = figure.subplots(1, 2, gridspec_kw=MARGINS)
    marks = np.array([value for value in map(float, [] if eigenvalues is None else eigenvalues) if np.isfinite(value)])
    _draw_density(left, density, np.concatenate([nodes[weights > 0], marks]), marks)
    _draw_tails(right, nodes, weights / len(weights), density.zero_threshold)
    trace, negative = density.trace, density.negative_mass
    total = f"trace by quadrature {trace.value:.4g} ± {trace.standard_error:.2g}"
    smoothing = f"smoothed by σ = {density.default_sigma:.2g}"
    set_notes(left, [total, f"{len(nodes)} probes of {nodes.shape[1]} steps", smoothing], width=WIDTH_OF_NOTES)
    near = (weights * (np.abs(nodes) <= density.zero_threshold)).sum() / len(weights)
    rounding = f"{near:.3g} within {density.zero_threshold:.1g} of 0"
    set_notes(right, [f"share below 0: {negative.value:.3g} ± {negative.standard_error:.1g}", rounding], width=WIDTH_OF_NOTES)
    set_title_above(figure, title, left, right)
    return figure


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
    write_powers(axes.xaxis, x)


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


def eigenpairs_figure(pairs: Eigenpairs, *, title: str) -> Figure:
    """Eigenvalues in descending order, with bars as long as their residuals; those that have not converged are hollow."""
    figure = empty_figure(6.2, 4.2)
    axes = figure.add_subplot()
    set_title(figure, title)
    values, residuals, converged = (part.cpu().numpy() for part in (pairs.values, pairs.residuals, pairs.converged))
    order = np.argsort(-values)
    values, converged = values[order], converged[order].astype(bool)
    errors = residuals[order] * np.abs(values).max(initial=0.0)
    finite = np.isfinite(values)
    places = np.arange(1, len(values) + 1)
    for chosen, face, label in ((converged, BLUE, "converged"), (~converged, "none", "not converged")):
        shown = chosen & finite
        if shown.any():
            bars = np.nan_to_num(errors[shown], nan=0.0, posinf=0.0)
            marks = {"fmt": "o", "color": BLUE, "markerfacecolor": face, "markersize": 5, "capsize": 2, "label": label}
            axes.errorbar(places[shown], values[shown], yerr=bars, **marks)
    mark_not_finite(axes, places[~finite])
    axes.axhline(0.0, color=INK, linewidth=0.6, alpha=0.5)
    axes.locator_params(axis="x", integer=True)
    axes.set(xlabel="number, from the largest", ylabel="eigenvalue λ")
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False)
    return figure
