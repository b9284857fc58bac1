"""What the page's script draws a moment from: planes, lines, a volume, a spectrum, put into one block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from loss_landscape.page.blocks import Block
from loss_landscape.page.content import CurveView, LineView, Moment, PathView, PlaneView, SpectrumView
from loss_landscape.page.words import told
from loss_landscape.results.grid import Grid
from loss_landscape.results.info import NOISE_MARGIN
from loss_landscape.viewing.colour_scale import ColourScale
from loss_landscape.viewing.labels import axis_label, notes_on, value_name

Facts = dict[str, Any]

OVER = 1000.0
"""From here on a relief beside its noise is "over 1000 times"."""


def moment_text(moment: Moment, scales: Mapping[str, ColourScale]) -> str:
    """A moment's block; `scales` are those that all planes of one kind share."""
    block = Block()
    facts: Facts = {
        "planes": {view.kind: _plane(view, block, scales[view.kind]) for view in moment.planes},
        "lines": [_line(view, block) for view in moment.lines],
        "volume": None if moment.volume is None else _volume(moment.volume, block),
        "spectrum": None if moment.spectrum is None else _spectrum(moment.spectrum, block),
        "connection": [_curve(view, block) for view in moment.connection],
    }
    return block.text(facts)


def shared_scales(planes: Iterable[PlaneView]) -> dict[str, ColourScale]:
    """A colour scale for all planes of each kind together."""
    losses: dict[str, list[np.ndarray]] = {}
    for view in planes:
        losses.setdefault(view.kind, []).append(view.grid.losses)
    return {kind: ColourScale.of(*arrays) for kind, arrays in losses.items()}


def scale_facts(scale: ColourScale) -> Facts:
    """A colour scale as the script knows it: its ends, the flat one opened a little, as in the PNGs."""
    norm = scale.norm()
    return {"low": norm.vmin, "high": norm.vmax, "log": scale.logarithmic, "flat": scale.is_flat}


def _plane(view: PlaneView, block: Block, shared: ColourScale) -> Facts:
    grid, own = view.grid, ColourScale.of(view.grid.losses)
    directions = grid.info.directions
    return {
        **_value(grid),
        "x": _axis(grid.coordinates[0]),
        "y": _axis(grid.coordinates[1]),
        "z": block.add(grid.losses.T),  # rows run along the vertical axis, the second direction
        "scale": scale_facts(own),
        "labels": [_short_label(grid, axis) for axis in (0, 1)],
        "about": plane_sentence(grid),
        "notes": [sentences(notes_on(grid, scale)) for scale in (shared, own)],
        "units": directions.relative_norms,
        "paths": [_path(path, grid) for path in view.paths],
        "nets": [point.coordinates for point in directions.points or ()],
    }


def _value(grid: Grid) -> Facts:
    """What a grid holds, its loss at the origin and what rounding hides."""
    return {"value": value_name(grid), "centre": grid.centre_loss, "noise": grid.float_noise}


def _path(path: PathView, grid: Grid) -> Facts:
    rows = [[*at.coordinates[:2], at.step, at.loss, at.plane_loss, at.residual] for at in path.points]
    return {
        "name": path.name,
        "clock": path.clock,
        "points": rows,
        "norm": grid.info.directions.origin_norm,
        "about": path_sentence(path),
    }


def _line(view: LineView, block: Block) -> Facts:
    grid = view.grid
    more = {"x": _axis(grid.coordinates[0]), "z": block.add(grid.losses), "scale": scale_facts(ColourScale.of(grid.losses))}
    return {**_value(grid), **more, "name": view.name, "label": _short_label(grid, 0)}


def _volume(grid: Grid, block: Block) -> Facts:
    axes = [_axis(axis) for axis in grid.coordinates]
    scale = ColourScale.of(grid.losses)
    labels = [_short_label(grid, axis) for axis in range(3)]
    more = {
        "z": block.add(grid.losses.transpose(2, 1, 0)),
        "scale": scale_facts(scale),
        "notes": sentences(notes_on(grid, scale)),
    }
    return {**_value(grid), **more, "axes": axes, "labels": labels}


def _spectrum(view: SpectrumView, block: Block) -> Facts:
    found = zip(view.eigenvalues, view.errors, view.converged, strict=True)
    density = {"x": block.add(view.x), "y": block.add(view.density)} if view.x.size else None
    threshold = {"value": view.threshold, "name": view.threshold_name}
    return {"found": [list(each) for each in found], "density": density, "threshold": threshold, "note": view.note}


def sentences(notes: Iterable[str]) -> str:
    """Notes as sentences, one after the other."""
    return " ".join(f"{note[:1].upper()}{note[1:]}." for note in notes)


def _curve(view: CurveView, block: Block) -> Facts:
    return {"name": view.name, "x": block.add(view.t), "z": block.add(view.losses)}


def _axis(places: np.ndarray) -> list[float] | Facts:
    """The places along an axis; where they are evenly apart, the ends and how many."""
    even = np.linspace(places[0], places[-1], places.size)
    if np.allclose(places, even, rtol=0, atol=1e-9 * (float(np.ptp(places)) or 1.0)):
        return {"from": places[0], "to": places[-1], "count": places.size}
    return [float(place) for place in places]


def _short_label(grid: Grid, axis: int) -> list[str]:
    """An axis' name, and below it how long a unit is."""
    return axis_label(grid, axis).split("\n")


def plane_sentence(grid: Grid) -> str:
    """The numbers of a plane in words: range, lowest place, relief beside noise, how far it reaches."""
    finite = np.where(np.isfinite(grid.losses), grid.losses, np.inf)
    if not np.isfinite(finite).any():
        return "No cell is finite."
    at = np.unravel_index(int(finite.argmin()), finite.shape)
    low, high = float(finite.min()), float(grid.losses[np.isfinite(grid.losses)].max())
    place = ", ".join(f"{told(float(axis[index]))}" for axis, index in zip(grid.coordinates, at, strict=True))
    net = "" if grid.centre_loss is None else f", the net's own is {grid.centre_loss:.4g}"
    parts = [
        f"Losses from {low:.4g} to {high:.4g}; the lowest cell is at ({place}){net}",
        *_relief(grid, high - low),
        *_reach(grid),
    ]
    return "; ".join(parts) + "."


def _relief(grid: Grid, spread: float) -> Sequence[str]:
    noise = grid.float_noise
    if noise is None:
        return ["its float noise was not measured"]
    if noise == 0:
        return ["it has no float noise to speak of"]
    times = f"over {OVER:.0f}" if spread > OVER * noise else f"{spread / noise:.3g}"
    doubt = ": mostly rounding" if spread < NOISE_MARGIN * noise else ""
    return [f"the range is {times} times the float noise ({told(noise, 2)}){doubt}"]


def _reach(grid: Grid) -> Sequence[str]:
    if grid.relative_span is None:
        return []
    return [f"its edges are up to {max(abs(end) for pair in grid.relative_span for end in pair):.3g} ‖θ‖ away"]


def path_sentence(path: PathView) -> str:
    """How much of a path its plane shows, and by which factor the plane's losses are off."""
    pairs = [(at.loss, at.plane_loss) for at in path.points if at.loss is not None and at.plane_loss is not None]
    parts = [f"the axes hold {sum(path.explained_variance):.1%} of the path's variance"] if path.explained_variance else []
    positive = [(own, shadow) for own, shadow in pairs if own > 0 and shadow > 0 and np.isfinite(own) and np.isfinite(shadow)]
    if positive:
        factor = max(max(own / shadow, shadow / own) for own, shadow in positive)
        parts.append(f"plane and real loss differ by up to a factor of {factor:.3g}")
    return sentences(["; ".join(parts)] if parts else [])
