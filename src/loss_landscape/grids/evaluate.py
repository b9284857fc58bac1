"""Losses on grids: lines, planes and volumes through a surface's origin."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from loss_landscape.directions.directions import Directions, custom_directions
from loss_landscape.grids.cell_order import CellOrder
from loss_landscape.grids.float_noise import checked_cells, noise_table, precision_error
from loss_landscape.grids.grid_spec import Settled, digest, forget
from loss_landscape.grids.partial_grid import PartialGrid
from loss_landscape.grids.progress import Pace, Progress
from loss_landscape.grids.refinement import NUM_HELD_OUT, LevelErrors, check_tolerance, level_errors
from loss_landscape.grids.span import Span, auto_span, axes_over
from loss_landscape.objective.functional_net import undisturbed
from loss_landscape.results.grid import Grid
from loss_landscape.shards import Shard, shard_files
from loss_landscape.surface.plane import Plane
from loss_landscape.surface.strategy import EAGER, Evaluation, EvaluationStrategy, Precision
from loss_landscape.surface.strategy_check import FAILURES, alternatives, failure_of, objection_to
from loss_landscape.surface.surface import LossSurface

Evaluate = Callable[[Plane, Tensor, EvaluationStrategy], Tensor]
"""(plane, coordinates [K, D], strategy) → values [K], float64."""

HIGH_RESOLUTION = 51
NUM_RANDOM_IN_LOWER_PRECISION = 4  # its error is no matter of luck


def evaluate_grid(
    surface: LossSurface,
    directions: Sequence[Tensor],
    resolution: int = 41,
    span: Span | Literal["auto"] = (-1.0, 1.0),
    tolerance: float | None = None,
    compile: bool | Literal["auto"] = "auto",
    chunk: int | None = None,
    partial: str | Path | None = None,
    precision: Precision = None,
    *,
    target_rise: float | None = None,
    progress: Progress | None = None,
    abort_if_estimated_hours_over: float | None = None,
    max_eval_points_cap: int | None = None,
    high_res: bool = False,
    noise_cells: int = 16,
    shard: Shard | None = None,
) -> Grid:
    """The loss at origin + Σ_d cᵈ·directions[d] for every cell of a regular grid, `resolution` cells a side over `span`.

    One to three directions. `span` is (low, high) for all or such a pair for each, or "auto": the power of two at which the loss
    has risen by `target_rise` (see `auto_span`). The cell at the origin, where there is one (odd resolutions), is the surface's
    own loss, and `meta["centre_difference"]` tells how far the grid's own path was from it there.

    `tolerance`, for lines and planes: cells are evaluated level by level, each twice as fine as the last, until a level's new
    cells, predicted from the level before, and 64 random ones of the next, predicted from this one, are all within it
    (|L̂ − L|/|L|). The rest is then the prediction, and False in the grid's `evaluated`; `meta["refinement"]` has the errors
    measured. It saves most where the loss is smooth, and nothing below 38 cells a side or where a cell is not finite.

    `chunk`, how many cells are evaluated at a time, goes by rule unless given, and is halved where memory runs out; so does
    `compile`. `precision="bfloat16"` is for the net alone: `meta["precision_error"]` tells how far that is from the surface's own
    dtype, and the cell at the origin stays as it was computed. `partial` is a file that keeps what is finished: interrupted and
    called again, the grid goes on where it was, with the same bits.

    The centre, the three lowest cells and `noise_cells` random ones are computed in float64 as well, and `meta["noise"]` has the
    differences; 0 leaves this out. That costs as much as some forty cells of a dense net, and hundreds of a large convnet.

    With a `shard` only its share of the chunks is evaluated and kept beside `partial`; what comes back is the grid as far as it
    is known, NaN and False in `evaluated` elsewhere. A call without one, of the same grid with the same `partial`, takes up what
    shards have kept, evaluates what is still missing, and gives the bits that it would have given alone. Directions, path and
    the loss at the origin are those of the first shard, and on disk for all.

    `progress(fraction, seconds_left)` is called as chunks are finished. Raises TimeoutError where the whole would take more than
    `abort_if_estimated_hours_over`, and ValueError for more cells than `max_eval_points_cap`, unless `high_res`, which takes at
    least 51 a side, without cap.
    """
    directions = described_directions(surface, directions)
    side = cells_a_side(resolution, len(directions), max_eval_points_cap, high_res)
    found: dict[str, Any] = {}
    if isinstance(span, str) and span == "auto":
        span, found = auto_span(surface, directions, target_rise)
    plane = surface.plane(directions)
    evaluation = Evaluation(compile=compile, chunk=chunk, precision=precision, noise_cells=noise_cells)
    path = plane.strategy(num_cells=side ** len(directions), evaluation=evaluation)

    axes, pace = axes_over(span, side, len(directions)), Pace(progress, abort_if_estimated_hours_over)
    job = GridJob(surface, directions, axes, _losses, surface.loss, path, found, tolerance, pace, noise_cells, plane=plane)
    if shard is None:
        return _as_settled(job, Path(partial)).run(partial) if partial is not None else job.run()
    if partial is None or tolerance is not None:
        raise ValueError(
            "a shard takes a partial file, beside which it keeps its share, and no tolerance: levels wait for each other"
        )
    return _as_settled(job, Path(partial), for_shards=True).run_share(Path(partial), shard)


def _losses(plane: Plane, coordinates: Tensor, strategy: EvaluationStrategy) -> Tensor:
    return plane.evaluate(coordinates, strategy)


def _as_settled(job: GridJob, partial: Path, *, for_shards: bool = False) -> GridJob:
    """The same grid as its shards have it, where there are any, or are to be."""
    known = Settled.read(partial)
    if known is None and not for_shards:
        return job
    if known is None:
        known = job.settled(partial).published(partial)
    if not known.suits(job.described()):
        if for_shards:
            raise ValueError(f"the shards beside {partial} are of another grid; give each grid a partial file of its own")
        return job
    directions = Directions(tuple(vector.to(job.surface.device) for vector in known.directions), known.directions.meta)
    return replace(
        job,
        directions=directions,
        plane=job.surface.plane(directions),
        centre=lambda: known.centre,
        path=known.path,
        meta=known.meta,
    )


def described_directions(surface: LossSurface, directions: Sequence[Tensor]) -> Directions:
    """`directions` with their description, one to three of them."""
    if not 1 <= len(directions) <= 3:
        raise ValueError(f"expected 1, 2 or 3 directions, got {len(directions)}")
    return directions if isinstance(directions, Directions) else custom_directions(surface, *directions)


def cells_a_side(resolution: int, count: int, cap: int | None, high_res: bool = False) -> int:
    """`resolution`, which must keep to the cap of cells for `count` axes together; with `high_res` 51 at least, without cap."""
    if cap is not None and cap < 3**count:
        raise ValueError(f"max_eval_points_cap is {cap}; give at least {3**count}, for 3 cells a side")
    if high_res:
        return max(resolution, HIGH_RESOLUTION)
    if cap is not None and resolution**count > cap:
        side = max(side for side in range(resolution) if side**count <= cap)
        raise ValueError(
            f"resolution is {resolution}, {resolution**count} cells, more than max_eval_points_cap = {cap}; the largest odd "
            f"resolution that fits is {side - 1 + side % 2}, or set high_res=True"
        )
    return resolution


@dataclass(frozen=True, eq=False)
class GridJob:
    """A grid to fill: `evaluate` gives the cells, `centre` the value at the origin in the plain way."""

    surface: LossSurface
    directions: Directions
    axes: tuple[np.ndarray, ...]
    evaluate: Evaluate
    centre: Callable[[], float]
    path: EvaluationStrategy
    meta: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float | None = None
    pace: Pace = field(default_factory=lambda: Pace(None, None))
    noise_cells: int = 16
    plane: Plane | None = None

    def __post_init__(self) -> None:
        check_tolerance(self.tolerance, len(self.axes))

    def run(self, partial: str | Path | None = None) -> Grid:
        """The grid, going on from `partial`, and from what shards kept beside it, where they hold parts of this very one."""
        with undisturbed(self.surface.device):
            centre = self.centre()
            store = PartialGrid.opened(partial, self._identity(centre), self.order.cells)
            shards = [] if store.file is None else shard_files(store.file)
            store.seconds_before += sum(store.absorb(file) for file in shards)
            with store.kept():
                filled = self._filled(store)
                grid = self._with_meta(filled, centre, store)
            if store.file is not None:
                forget(store.file)
        self.pace.finished()
        return grid

    def run_share(self, partial: Path, shard: Shard) -> Grid:
        """Evaluate what nobody has yet of a shard's chunks, into its own file; the grid as far as it is known then."""
        with undisturbed(self.surface.device):
            store = PartialGrid.opened(shard.beside(partial), self._identity(self.centre()), self.order.cells)
            if store.path is None:
                store.begin(self.path)
            for file in [partial, *shard_files(partial)]:
                store.absorb(file)
            with store.kept():
                self._fill_share(store, shard)
            store.save()
        self.pace.finished()
        meta = {
            "shard": [shard.index, shard.count],
            "coordinates": [axis.tolist() for axis in self.axes],
            "seconds": store.seconds,
        }
        shape = self.order.shape
        return Grid(store.values.reshape(shape), self.axes, meta, store.finished().reshape(shape))

    def described(self) -> Settled:
        """What this grid is, as its shards would have to know it."""
        with undisturbed(self.surface.device):
            origin, centre = digest(self.surface.origin), self.centre()
        dtypes = f"{self.surface.dtype} {self.path.precision}"
        return Settled(origin, dtypes, self.directions, self.axes, self.path, centre, self.meta)

    def settled(self, partial: Path) -> Settled:
        """The same with the path that `partial` holds, else with one that is judged now; nothing of the grid is kept."""
        with undisturbed(self.surface.device):
            store = PartialGrid.opened(partial, self._identity(self.centre()), self.order.cells)
            self._settle(store, self.path)
        return replace(self.described(), path=store.path)

    @cached_property
    def order(self) -> CellOrder:
        """In which order the cells are evaluated."""
        return CellOrder(self.axes)

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
        facts = [str(self.surface.dtype), str(self.path.precision), centre.hex(), repr(sorted(self.meta.items()))]
        return [t.cpu().numpy().tobytes() for t in tensors] + [axis.tobytes() for axis in self.axes] + [f.encode() for f in facts]

    def _filled(self, store: PartialGrid) -> _Filled:
        """All values, by half the chunk from the start again whenever memory runs out."""
        path = self.path
        while True:
            try:
                if store.path is None:
                    self._begin(store, path)
                return self._by_levels(store)
            except torch.OutOfMemoryError as error:
                path = _smaller(store.path or path, error)
            store.path = None  # out of the handler: its traceback holds the tensors that were too many
            self.pace.restart()

    def _settle(self, store: PartialGrid, path: EvaluationStrategy) -> None:
        """`_begin`, by half the chunk again whenever memory runs out."""
        while store.path is None:
            try:
                self._begin(store, path)
            except torch.OutOfMemoryError as error:
                path = _smaller(path, error)

    def _fill_share(self, store: PartialGrid, shard: Shard) -> None:
        share = shard.share(len(store.done))
        for chunk in share:
            if store.done[chunk]:
                continue
            try:
                self._evaluate_chunk(store, chunk)
            except torch.OutOfMemoryError as error:
                raise RuntimeError(
                    f"out of memory with {store.path.chunk} cells at a time, which all shards of a grid share: give a smaller "
                    "chunk, and another partial file"
                ) from error
            self.pace.chunk_done(int(store.done[share].sum()), len(share), store.seconds)

    def _begin(self, store: PartialGrid, path: EvaluationStrategy) -> None:
        """Settle the path: this one if its first cells agree with the plain loop, else one with less to go wrong, and why.

        A net that branches on its values, or writes to its own tensors, can't be traced, or only in silence wrongly.
        """
        for candidate in alternatives(path):
            settled = replace(candidate, note=path.note)
            values, objection = self._tried(settled)
            if objection is None:
                store.begin(settled)
                for chunk, part in enumerate(values):
                    store.put(chunk, part)
                return
            path = path.with_note(objection)

    def _tried(self, path: EvaluationStrategy) -> tuple[list[np.ndarray], str | None]:
        """The values of the first chunks by a path, and what speaks against it; of a plain loop neither."""
        if path.name == "eager":
            return [], None
        judged, cells = self.order.judged, self.order.cells
        try:
            starts = range(0, len(judged), path.chunk)
            first = [self._values(cells[start : start + path.chunk], path) for start in starts]
            found = np.concatenate(first)[: len(judged)]
            if path.precision is not None:  # its rounding would hide a wrong graph
                found = self._values(judged, replace(path, precision=None))
        except torch.OutOfMemoryError:
            raise
        except FAILURES as error:
            return [], failure_of(path, error)
        plain = self._values(judged, EAGER)
        return first, objection_to(path, found, plain, self.surface.dtype)

    def _by_levels(self, store: PartialGrid) -> _Filled:
        """Level by level until the tolerance is kept; every cell where it never is, where none is given, or a cell not finite."""
        measured: list[LevelErrors] = []
        for level in range(1, len(self.order.levels) - 1) if self.tolerance is not None else ():
            known = self._fill(store, self.order.through(level) + NUM_HELD_OUT)
            if not np.isfinite(store.values[known]).all():
                break
            errors, guesses = level_errors(self.order, store.values, known, level)
            measured.append(errors)
            if errors.within(self.tolerance):
                return _Filled(np.where(known, store.values, guesses), known, measured)
        known = self._fill(store, len(self.order.cells))
        return _Filled(store.values.copy(), known, measured)

    def _fill(self, store: PartialGrid, count: int) -> np.ndarray:
        """Evaluate the chunks of the first `count` cells; which cells these chunks hold, [cells] bool."""
        for chunk in store.missing(count):
            self._evaluate_chunk(store, chunk)
            self.pace.chunk_done(int(store.done.sum()), len(store.done), store.seconds)
        return store.covered(count)

    def _evaluate_chunk(self, store: PartialGrid, chunk: int) -> None:
        store.put(chunk, self._values(store.cells_of(chunk), store.path))

    def _values(self, cells: Sequence[int] | np.ndarray, path: EvaluationStrategy, plane: Plane | None = None) -> np.ndarray:
        return self.evaluate(plane or self.plane, self.cells[torch.as_tensor(cells)], path).cpu().numpy()

    def _with_meta(self, filled: _Filled, centre: float, store: PartialGrid) -> Grid:
        """The grid with its own loss at the origin and all that is known about it."""
        values, difference = filled.values, None
        if self.centre_cell is not None:
            difference = float(values[self.centre_cell]) - centre
            if store.path.precision is None:  # else the centre would stand out from its neighbours by their rounding
                values[self.centre_cell] = centre
        meta = {
            **self.directions.meta,
            **self._extent(),
            "baseline_loss": centre,
            "centre_difference": difference,
            **self._worth(filled, store.path),
            "num_nonfinite": int((~np.isfinite(values)).sum()),
            **filled.described(self.tolerance),
            "strategy": store.path.name,
            "strategy_note": store.path.note,
            "chunk": store.path.chunk,
            "compiled": store.path.compiled,
            "precision": store.path.precision,
            "dtype": self._dtype,
            "weighting": self.surface.objective.batch_weights.rule,
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__},
            **self.meta,
            "seconds": store.seconds,
        }
        return Grid(values.reshape(self.order.shape), self.axes, meta, filled.evaluated.reshape(self.order.shape))

    def _extent(self) -> dict[str, Any]:
        span = [[float(axis[0]), float(axis[-1])] for axis in self.axes]
        norms, origin = self.directions.meta["direction_norms"], self.directions.meta["origin_norm"]
        relative = [[edge * norm / origin for edge in pair] if origin else None for pair, norm in zip(span, norms, strict=True)]
        return {
            "resolution": len(self.axes[0]),
            "span": span,
            "relative_span": relative,
            "coordinates": [axis.tolist() for axis in self.axes],
        }

    def _worth(self, filled: _Filled, path: EvaluationStrategy) -> dict[str, Any]:
        """Some cells beside the same in float64, or in the surface's own dtype where the net was evaluated in a lower one."""
        nothing = {"noise_floor": None, "noise": [], "precision_error": None}
        if path.precision is not None:
            why = checked_cells(filled.values, filled.evaluated, self.centre_cell, NUM_RANDOM_IN_LOWER_PRECISION)
            own = self._values(list(why), replace(path, precision=None, compiled=False))
            found = noise_table(why, filled.values, own.tolist(), self.order.shape, self._dtype)
            return {**found, "precision_error": precision_error(filled.values[list(why)], own)}
        if self.noise_cells == 0 or self.surface.dtype == torch.float64 or self.surface.device.type == "mps":
            return nothing
        why = checked_cells(filled.values, filled.evaluated, self.centre_cell, self.noise_cells)
        try:
            exact = self._values(list(why), EAGER, self.plane.in_dtype(torch.float64))
        except RuntimeError as error:  # a net that makes float32 tensors of its own
            return {**nothing, "noise_note": _first_line(error)}
        return {**nothing, **noise_table(why, filled.values, exact.tolist(), self.order.shape, "float64")}

    @property
    def _dtype(self) -> str:
        return str(self.surface.dtype).removeprefix("torch.")


@dataclass(frozen=True, eq=False)
class _Filled:
    values: np.ndarray  # [cells]
    evaluated: np.ndarray  # [cells] bool; the others are predicted
    measured: Sequence[LevelErrors]

    def described(self, tolerance: float | None) -> dict[str, Any]:
        all_evaluated = bool(self.evaluated.all())
        return {
            "num_cells": len(self.values),
            "num_evaluated": int(self.evaluated.sum()),
            "tolerance": tolerance,
            "refinement": [errors.described() for errors in self.measured],
            "largest_held_out_error": None if all_evaluated else self.measured[-1].held_out,
        }


def _smaller(path: EvaluationStrategy, error: torch.OutOfMemoryError) -> EvaluationStrategy:
    if path.chunk == 1:
        raise RuntimeError(
            "out of memory with a single cell at a time; give the surface smaller batches, or evaluate it on the CPU"
        ) from error
    return path.halved().with_note(f"out of memory with {path.chunk} cells at a time")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
