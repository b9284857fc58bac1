"""Results as HTML for notebooks: a table of the numbers that matter, and the picture."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np

from loss_landscape.paths.curves import Curve
from loss_landscape.results.density import Density
from loss_landscape.results.diagonal import DiagonalEstimate
from loss_landscape.results.directions import Directions
from loss_landscape.results.eigenpairs import Eigenpairs
from loss_landscape.results.estimate import Estimate
from loss_landscape.results.grid import Grid
from loss_landscape.results.hessian_metrics import HessianMetrics
from loss_landscape.results.landscape import Landscape
from loss_landscape.results.layers import LayerCurvature, LayerCurvatures
from loss_landscape.results.path_losses import PathLosses
from loss_landscape.results.trajectory import Trajectory
from loss_landscape.topology import MergeTree
from loss_landscape.units.alignment import Alignment
from loss_landscape.viewing.colour_scale import ColourScale
from loss_landscape.viewing.curves import curve_figure
from loss_landscape.viewing.labels import notes_on
from loss_landscape.viewing.lines import line_figure, path_figure
from loss_landscape.viewing.planes import contour_figure, volume_figure
from loss_landscape.viewing.spectra import eigenpairs_figure, spectrum_figure
from loss_landscape.viewing.trajectories import trajectory_figure
from loss_landscape.viewing.trees import merge_tree_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ROWS = 12  # of a table
GRID_FIGURES = {1: line_figure, 2: contour_figure, 3: volume_figure}
Rows = Sequence[tuple[str, Any]]


@singledispatch
def html_of(result: Any) -> str:
    """A result as HTML, its numbers in a table and its picture, where it has one, as an embedded PNG."""
    raise TypeError(f"no HTML is known for {type(result).__name__}")


@html_of.register
def _(grid: Grid) -> str:
    finite = grid.losses[np.isfinite(grid.losses)]
    reach = [f"{axis.min():.3g} … {axis.max():.3g}" for axis in grid.coordinates if axis.size]
    facts = {
        "losses": f"{finite.min():.4g} … {finite.max():.4g}" if finite.size else "none is finite",
        "at the centre": _number(grid.centre_loss),
        "coordinates": ", ".join(reach),
        "notes": "; ".join(notes_on(grid, ColourScale.of(grid.losses))) if grid.losses.size else "",
    }
    draw = GRID_FIGURES.get(grid.losses.ndim) if grid.losses.size else None
    return _page(f"Grid, {_cells(grid)}", list(facts.items()), draw(grid, title="") if draw else None)


@html_of.register
def _(landscape: Landscape) -> str:
    grid = landscape.grid
    rows = [
        ("of", grid.info.extra.get("model")),
        ("loss", grid.info.extra.get("loss")),
        ("notes", "; ".join(landscape.notes)),
    ]
    return _page(f"Landscape, {landscape.mode}, {_cells(grid)}", rows) + html_of(grid)


@html_of.register
def _(path: Trajectory) -> str:
    first, last, shares = path.points[0], path.points[-1], path.directions.explained_variance
    apart = max(abs(point.plane_loss - point.loss) for point in path.points)
    rows = [
        ("checkpoints", len(path.points)),
        ("loss", f"{first.loss:.4g} → {last.loss:.4g}"),
        ("plane", path.mode),
        ("explained variance", "" if shares is None else ", ".join(f"{share:.1%}" for share in shares)),
        ("largest distance from the plane", _number(max(path.residuals))),
        ("plane's loss and own differ by up to", _number(apart)),
    ]
    return _page(f"Trajectory {path.name}", rows, trajectory_figure(path, title=""))


@html_of.register
def _(metrics: HessianMetrics) -> str:
    rows = [
        ("λ_max", _solved(metrics, 0)),
        ("λ_min", "" if metrics.min_eigenvalue is None else _solved(metrics, metrics.num_top)),
        ("trace", _estimate(metrics.trace)),
        ("parameters", metrics.size),
        ("epoch", f"{metrics.epoch:g}"),
        ("notes", "; ".join(metrics.notes)),
    ]
    return _page("HessianMetrics", rows, None if metrics.pairs is None else eigenpairs_figure(metrics.pairs, title=""))


def _solved(metrics: HessianMetrics, at: int) -> str:
    state = "" if metrics.converged[at] else ", not converged"
    return f"{metrics.eigenvalues[at]:.6g}, residual {metrics.residuals[at]:.1e}{state}"


def _cells(grid: Grid) -> str:
    return " × ".join(str(size) for size in grid.losses.shape) + " cells"


@html_of.register
def _(density: Density) -> str:
    rows = [
        ("trace", _estimate(density.trace)),
        ("Frobenius norm", _estimate(density.frobenius_norm)),
        ("share below 0", _estimate(density.negative_mass)),
        ("note", density.note),
    ]
    return _page(f"Density of {density.size} eigenvalues", rows, spectrum_figure(density, title=""))


@html_of.register
def _(pairs: Eigenpairs) -> str:
    facts = zip(pairs.values.tolist(), pairs.residuals.tolist(), pairs.converged.tolist(), strict=True)
    rows = [
        (f"λ{number}", f"{value:.6g}, residual {residual:.1e}{'' if converged else ', not converged'}")
        for number, (value, residual, converged) in enumerate(facts, start=1)
    ]
    title = f"Eigenpairs, {pairs.num_top} largest and {len(pairs.values) - pairs.num_top} smallest"
    return _page(title, [*_shortened(rows), ("note", pairs.note)], eigenpairs_figure(pairs, title=""))


@html_of.register
def _(losses: PathLosses) -> str:
    rows = [
        ("barrier", _number(losses.barrier)),
        ("highest loss", _number(losses.highest)),
        ("mean loss", _number(losses.mean)),
        ("length", _number(float(losses.lengths[-1]))),
    ]
    return _page(f"PathLosses at {len(losses.t)} points", rows, path_figure(losses, title=""))


@html_of.register
def _(curve: Curve) -> str:
    shown = [(name, value) for name, value in curve.meta.items() if isinstance(value, str | int | float)]
    rows = [("control points", len(curve.controls)), ("parameters", curve.controls.shape[1]), *shown]
    return _page("Curve", rows, curve_figure(curve, title=""))


@html_of.register
def _(tree: MergeTree) -> str:
    components = zip(tree.minima, tree.births, tree.deaths, strict=True)
    bars = [(f"minimum at {cell.tolist()}", f"{birth:.4g} … {death:.4g}") for cell, birth, death in components]
    rows = [("total persistence", _number(tree.total_persistence)), *_shortened(bars)]
    count = tree.num_minima()
    return _page(f"MergeTree of {count} {'minimum' if count == 1 else 'minima'}", rows, merge_tree_figure(tree, title=""))


@html_of.register
def _(estimate: Estimate) -> str:
    rows = [("value", _estimate(estimate)), ("samples", estimate.num_samples), ("note", estimate.note)]
    return _page("Estimate", rows)


@html_of.register
def _(diagonal: DiagonalEstimate) -> str:
    values, errors = diagonal.values, diagonal.standard_errors
    rows = [
        ("entries", len(values)),
        ("from … to", f"{float(values.min()):.4g} … {float(values.max()):.4g}" if len(values) else "none"),
        ("largest standard error", _number(float(errors.max())) if len(values) else "none"),
        ("samples", diagonal.num_samples),
    ]
    return _page("DiagonalEstimate", rows)


@html_of.register
def _(layer: LayerCurvature) -> str:
    return _page(
        f"LayerCurvature of {layer.name}",
        [("parameters", layer.num_parameters), ("top eigenvalue", _top(layer)), ("trace", _estimate(layer.trace))],
    )


@html_of.register
def _(layers: LayerCurvatures) -> str:
    rows = [(row.name, f"top eigenvalue {_top(row)}; trace {_estimate(row.trace)}") for row in layers]
    return _page(f"LayerCurvatures, {len(layers)} layers", _shortened(rows))


@html_of.register
def _(directions: Directions) -> str:
    info = directions.info
    rows = [
        ("kind", info.kind),
        ("parameters", len(directions[0])),
        ("normalization", info.normalization),
        ("norms", ", ".join(_number(norm) for norm in info.norms)),
        ("‖origin‖", "" if info.origin_norm is None else _number(info.origin_norm)),
        ("largest cosine", _number(info.cosine)),
    ]
    return _page(f"Directions, {len(directions)}", rows)


def _top(layer: LayerCurvature) -> str:
    return f"{layer.top_eigenvalue:.6g}, residual {layer.residual:.1e}{'' if layer.converged else ', not converged'}"


@html_of.register
def _(alignment: Alignment) -> str:
    rows = [
        ("distance before", _number(alignment.distance_before)),
        ("distance", _number(alignment.distance)),
        ("units in each group", ", ".join(str(size) for size in alignment.groups.sizes)),
        *_shortened([(f"{name} stays", why) for name, why in alignment.groups.fixed.items()]),
    ]
    return _page("Alignment", rows)


def _page(title: str, rows: Rows, figure: Figure | None = None) -> str:
    """A heading, a table of the rows that are not empty, and the figure."""
    lines = "".join(
        f'<tr><th style="text-align:left">{html.escape(name)}</th><td style="text-align:left">{html.escape(str(value))}</td></tr>'
        for name, value in rows
        if value not in ("", None)
    )
    picture = "" if figure is None else f'<img alt="{html.escape(title)}" src="data:image/png;base64,{_png(figure)}">'
    return f"<div><strong>{html.escape(title)}</strong><table>{lines}</table>{picture}</div>"


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=96)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _shortened(rows: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The first rows, and how many more there are."""
    return rows if len(rows) <= MAX_ROWS else [*rows[:MAX_ROWS], ("and", f"{len(rows) - MAX_ROWS} more")]


def _estimate(estimate: Estimate) -> str:
    return f"{estimate.value:.6g} ± {estimate.standard_error:.2g}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
