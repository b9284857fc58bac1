"""Losses on grids: lines, planes and volumes through a surface's origin."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loss_landscape.directions import Directions, custom_directions
from loss_landscape.partial import PartialGrid
from loss_landscape.results import Grid
from loss_landscape.surface import GridPath, LossSurface

Span = Sequence[float] | Sequence[Sequence[float]]
Evaluate = Callable[[LossSurface, Tensor, GridPath], Tensor]
"""(surface, coordinates [K, D], path) → values [K], float64."""

PLAIN = GridPath("loop", 16)
NUM_LOWEST_CHECKS, NUM_RANDOM_CHECKS = 3, 16


def evaluate_grid(
    surface: LossSurface,
    directions: Sequence[Tensor],
    resolution: int = 41,
    span: Span = (-1.0, 1.0),
    tolerance: None = None,
    compile: str | bool = "auto",
    chunk: int | None = None,
    partial: str | Path | None = None,
) -> Grid:
    """The loss at origin + Σ_d cᵈ·directions[d] for every cell of a regular grid, `resolution` cells a side over `span`.

    One to three directions; `span` is (low, high) for all or such a pair for each. The cell at the origin, where there is one
    (odd resolutions), is the surface's own loss, and `meta["centre_difference"]` tells how far the grid's own path was from it
    there. `chunk` is how many cells are evaluated at a time, by rule unless given. `partial` is a file that keeps what is
    finished: interrupted and called again, the grid goes on where it was, with the same bits.
    """
    if tolerance is not None:
        raise ValueError(f"tolerance must be None, which evaluates every cell, got {tolerance!r}")
    if compile not in ("auto", False):
        raise ValueError(f"compile must be 'auto' or False, got {compile!r}")
    directions = described_directions(surface, directions)

    def losses(on: LossSurface, coordinates: Tensor, path: GridPath) -> Tensor:
        return on.along(directions, coordinates, path)

    axes = axes_over(span, resolution, len(directions))
    path = GridPath(surface.grid_path().name, chunk_of(chunk)) if chunk is not None else surface.grid_path()
    return GridJob(surface, directions, axes, losses, surface.loss, path).run(partial)


def described_directions(surface: LossSurface, directions: Sequence[Tensor]) -> Directions:
    """`directions` with their description, one to three of them."""
    if not 1 <= len(directions) <= 3:
        raise ValueError(f"expected 1, 2 or 3 directions, got {len(directions)}")
    return directions if isinstance(directions, Directions) else custom_directions(surface, *directions)


def chunk_of(chunk: int) -> int:
    """`chunk`, which must be 1 or more."""
    if chunk < 1:
        raise ValueError(f"chunk must be ≥ 1, got {chunk}")
    return chunk


def axes_over(span: Span, resolution: int, count: int) -> tuple[np.ndarray, ...]:
    """`resolution` equally spaced coordinates for each of `count` axes, float64; over ±x they are exactly symmetric about 0."""
    if resolution < 2:
        raise ValueError(f"resolution must be ≥ 2, got {resolution}")
    pairs = [tuple(span)] * count if np.ndim(span) == 1 else [tuple(pair) for pair in span]
    if len(pairs) != count or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"span must be (low, high), or such a pair for each of the {count} directions, got {span}")
    return tuple(_axis(float(low), float(high), resolution) for low, high in pairs)


def _axis(low: float, high: float, resolution: int) -> np.ndarray:
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"span must be finite with low < high, got ({low}, {high})")
    steps = np.arange(1 - resolution, resolution, 2) / (resolution - 1)  # -1 … 1, with 0 itself in the middle where odd
    axis = (high + low) / 2 + (high - low) / 2 * steps
    axis[0], axis[-1] = low, high
    return axis


@dataclass(frozen=True, eq=False)
class GridJob:
    """A grid to fill: `evaluate` gives the cells, `centre` the value at the origin in the plain way."""

    surface: LossSurface
    directions: Directions
    axes: tuple[np.ndarray, ...]
    evaluate: Evaluate
    centre: Callable[[], float]
    path: GridPath
    meta: Mapping[str, Any] = field(default_factory=dict)

    def run(self, partial: str | Path | None = None) -> Grid:
        """Evaluate every cell, going on from `partial` where it holds a part of this very grid."""
        began = time.monotonic()
        centre = self.centre()
        store = PartialGrid.opened(partial, self._identity(centre), len(self.cells), self._checked_path)
        flat = store.filled(lambda part, path: self.evaluate(self.surface, self.cells[part], path).cpu().numpy())
        difference = None
        if self.centre_cell is not None:
            difference = float(flat[self.centre_cell]) - centre
            flat[self.centre_cell] = centre
        losses = flat.reshape([len(axis) for axis in self.axes])
        meta = self._meta(flat, centre, difference, store.path)
        grid = Grid(losses, self.axes, {**meta, "seconds": store.seconds + time.monotonic() - began})
        store.discard()
        return grid

    @cached_property
    def cells(self) -> Tensor:
        """The coordinates of all cells, [K, D] float64, the last axis running fastest."""
        return torch.cartesian_prod(*(torch.from_numpy(axis) for axis in self.axes)).reshape(-1, len(self.axes))

    @cached_property
    def centre_cell(self) -> int | None:
        """The cell at the origin."""
        at_origin = torch.nonzero((self.cells == 0).all(dim=1))[:, 0].tolist()
        return at_origin[0] if at_origin else None

    def _identity(self, centre: float) -> list[bytes]:
        """What makes this grid another one than any other."""
        tensors = [self.surface.origin, *self.directions]
        facts = [str(self.surface.dtype), centre.hex(), repr(sorted(self.meta.items()))]
        return [t.cpu().numpy().tobytes() for t in tensors] + [axis.tobytes() for axis in self.axes] + [f.encode() for f in facts]

    def _checked_path(self) -> GridPath:
        """The path if it agrees with the plain loop at the origin and two corners, else the loop and why.

        A net that branches on its values, or writes to its own tensors, can't be batched, or only in silence wrongly.
        """
        if self.path.name == "loop":
            return self.path
        probes = torch.cat([torch.zeros_like(self.cells[:1]), self.cells[[0, -1]]])
        plain = self.evaluate(self.surface, probes, PLAIN)
        try:
            batched = self.evaluate(self.surface, probes, self.path)
        except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
            return GridPath("loop", PLAIN.chunk, f"batching points failed: {str(error).strip().splitlines()[0]}")
        relative, absolute = (1e-10, 1e-10) if self.surface.dtype == torch.float64 else (1e-5, 1e-6)
        if torch.allclose(batched, plain, rtol=relative, atol=absolute, equal_nan=True):
            return self.path
        return GridPath("loop", PLAIN.chunk, f"batching points gave {batched.tolist()} instead of {plain.tolist()}")

    def _meta(self, flat: np.ndarray, centre: float, difference: float | None, path: GridPath) -> dict[str, Any]:
        span = [[float(axis[0]), float(axis[-1])] for axis in self.axes]
        norms, origin = self.directions.meta["direction_norms"], self.directions.meta["origin_norm"]
        relative = [[edge * norm / origin for edge in pair] if origin else None for pair, norm in zip(span, norms, strict=True)]
        return {
            **self.directions.meta,
            "resolution": len(self.axes[0]),
            "span": span,
            "relative_span": relative,
            "coordinates": [axis.tolist() for axis in self.axes],
            "baseline_loss": centre,
            "centre_difference": difference,
            **self._noise(flat),
            "num_nonfinite": int((~np.isfinite(flat)).sum()),
            "num_evaluated": len(flat),
            "path": path.name,
            "path_note": path.note,
            "chunk": path.chunk,
            "dtype": str(self.surface.dtype).removeprefix("torch."),
            "weighting": self.surface.weighting,
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__},
            **self.meta,
        }

    def _noise(self, flat: np.ndarray) -> dict[str, Any]:
        """The error against float64 of the centre, the lowest cells and some random ones; `noise_floor` is the largest."""
        if self.surface.dtype == torch.float64 or self.surface.device.type == "mps":
            return {"noise_floor": None, "noise": []}
        why = self._checked_cells(flat)
        try:
            exact = self.evaluate(self.surface.in_dtype(torch.float64), self.cells[list(why)], PLAIN).cpu().numpy()
        except RuntimeError as error:  # a net that makes float32 tensors of its own
            return {"noise_floor": None, "noise": [], "noise_note": str(error).strip().splitlines()[0]}
        rows = [
            self._compared(cell, reason, float(flat[cell]), truth)
            for (cell, reason), truth in zip(why.items(), exact.tolist(), strict=True)
        ]
        known = [row["absolute_error"] for row in rows if np.isfinite(row["absolute_error"])]
        return {"noise_floor": max(known, default=None), "noise": rows}

    def _compared(self, cell: int, why: str, loss: float, truth: float) -> dict[str, Any]:
        place = np.unravel_index(cell, [len(axis) for axis in self.axes])
        error = abs(loss - truth)
        return {
            "cell": [int(index) for index in place],
            "why": why,
            "loss": loss,
            "float64": truth,
            "absolute_error": error,
            "relative_error": error / abs(truth) if truth else error,
        }

    def _checked_cells(self, flat: np.ndarray) -> dict[int, str]:
        """Cell → why it is checked against float64."""
        drawn = torch.randperm(len(flat), generator=torch.Generator().manual_seed(0))[:NUM_RANDOM_CHECKS]
        lowest = np.argsort(np.where(np.isfinite(flat), flat, np.inf), kind="stable")[:NUM_LOWEST_CHECKS]
        chosen = dict.fromkeys(drawn.tolist(), "random") | {int(cell): "lowest" for cell in lowest}
        return chosen | ({} if self.centre_cell is None else {self.centre_cell: "centre"})
