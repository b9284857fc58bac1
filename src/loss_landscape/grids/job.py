"""Filling a grid: chunk by chunk, level by level, going on from what is kept, alone or a shard of many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from loss_landscape.checkpointing import Checkpointing, digest
from loss_landscape.grids.cells import GridCells
from loss_landscape.grids.float_noise import float_noise
from loss_landscape.grids.grid_spec import GridSpec, delete_partial_files
from loss_landscape.grids.metadata import FilledGrid, strategy_info, with_centre
from loss_landscape.grids.partial_grid import PartialGrid
from loss_landscape.grids.refinement import NUM_HELD_OUT, level_errors
from loss_landscape.grids.strategy_check import begin, begin_in_memory, interior_objection, smaller
from loss_landscape.objective.functional_net import undisturbed
from loss_landscape.progress import ProgressEstimate
from loss_landscape.results.directions import Directions
from loss_landscape.results.grid import Grid
from loss_landscape.results.info import FloatNoise, GridInfo, LevelErrors, SpanSearch
from loss_landscape.shards import Shard
from loss_landscape.surface.strategy import EAGER, EvaluationStrategy


@dataclass(frozen=True, eq=False)
class GridJob:
    """A grid to fill: `cells` along `directions` by a `strategy`; `baseline` gives the value at the origin in the plain way.

    `corner_loss` is that of its cells, where shards have it from the first of them.
    """

    cells: GridCells
    directions: Directions
    baseline: Callable[[], float]
    strategy: EvaluationStrategy
    tolerance: float | None = None
    noise_cells: int | None = None
    span_found: SpanSearch | None = None
    checkpointing: Checkpointing = Checkpointing()
    corner_loss: float | None = None
    estimate: ProgressEstimate = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "estimate", ProgressEstimate(self.checkpointing))

    def run(self) -> Grid:
        """The grid, going on from the file, and from what shards kept beside it, where they hold parts of this very one."""
        with undisturbed(self.cells.device):
            baseline = self.baseline()
            store = self._store(baseline)
            known = self.checkpointing.known_files
            store.resumable.seconds_before += sum(store.absorb(file) for file in known[1:])
            with store.resumable.kept():
                grid = self._judged(store, baseline)
            if known:
                delete_partial_files(known[0])
        self.estimate.finished()
        return grid

    def run_share(self, shard: Shard) -> Grid:
        """Evaluate what nobody has yet of a shard's chunks, into its own file; the grid as far as it is known then."""
        with undisturbed(self.cells.device):
            store = self._store(self.baseline())
            if not store.has_begun:
                store.begin(self.strategy)
            for file in self.checkpointing.known_files:
                store.absorb(file)
            with store.resumable.kept():
                self._fill_share(store, shard)
            store.resumable.save()
        self.estimate.finished()
        shape = self.cells.order.shape
        info = GridInfo(
            directions=self.directions.info,
            rho=self.cells.rho,
            seconds=store.resumable.seconds,
            extra={"shard": [shard.index, shard.count]},
        )
        return Grid(store.values.reshape(shape), self.cells.axes, info, store.finished().reshape(shape))

    def spec(self) -> GridSpec:
        """What this grid is, as its shards have to know it."""
        with undisturbed(self.cells.device):
            origin, baseline = digest([self.cells.plane.origin]), self.baseline()
        dtypes = f"{self.cells.dtype} {self.strategy.precision}"
        axes, rho = self.cells.axes, self.cells.rho
        return GridSpec(origin, dtypes, self.directions, axes, rho, self.strategy, baseline, self._corner_loss(), self.span_found)

    def checked_spec(self) -> GridSpec:
        """The same with the strategy that the file holds, else with one that is checked now; nothing of the grid is kept."""
        alone = replace(self, checkpointing=replace(self.checkpointing, shard=None))
        with undisturbed(self.cells.device):
            store = alone._store(self.baseline())
            begin_in_memory(store, self.cells, self.strategy)
        return replace(self.spec(), strategy=store.strategy)

    def _store(self, baseline: float) -> PartialGrid:
        return PartialGrid(self.checkpointing.own_file, lambda: self._identity(baseline), self.cells.order.cells)

    def _identity(self, baseline: float) -> Iterable[Tensor | np.ndarray | str]:
        """What no other grid has all of; a penalty may be 0 at the origin, but not at a corner as well."""
        facts = [self.cells.dtype, self.strategy.precision, self.cells.rho, self.span_found, self._corner_loss().hex()]
        return [self.cells.plane.origin, *self.directions, *self.cells.axes, baseline.hex(), repr(facts)]

    def _corner_loss(self) -> float:
        """The value at a corner: as all shards have it, where there are any."""
        return self.cells.corner_loss if self.corner_loss is None else self.corner_loss

    def _filled(self, store: PartialGrid) -> FilledGrid:
        """All losses, by half the chunk from the start again whenever memory runs out."""
        strategy = self.strategy
        while True:
            try:
                if not store.has_begun:
                    begin(store, self.cells, strategy)
                return self._by_levels(store)
            except torch.OutOfMemoryError as error:
                strategy = smaller(store.strategy if store.has_begun else strategy, error)
            store.abandon()  # out of the handler: its traceback holds the tensors that were too many
            self.estimate.restart()

    def _by_levels(self, store: PartialGrid) -> FilledGrid:
        """Level by level until the tolerance is kept; every cell where it never is, where none is given, or a cell not finite."""
        order, measured = self.cells.order, list[LevelErrors]()
        for level in range(1, len(order.levels) - 1) if self.tolerance is not None else ():
            known = self._fill(store, order.through(level) + NUM_HELD_OUT)
            if not np.isfinite(store.values[known]).all():
                break
            errors, guesses = level_errors(order, store.values, known, level)
            measured.append(errors)
            if self.tolerance is not None and errors.within(self.tolerance):
                return FilledGrid(np.where(known, store.values, guesses), known, measured)
        known = self._fill(store, len(order.cells))
        return FilledGrid(store.values.copy(), known, measured)

    def _fill(self, store: PartialGrid, count: int) -> np.ndarray:
        """Evaluate the chunks of the first `count` cells; which cells these chunks hold, [cells] bool."""
        for chunk in store.missing(count):
            store.put(chunk, self.cells.losses(store.cells_of(chunk), store.strategy))
            self.estimate.part_done(int(store.done.sum()), len(store.done), store.resumable.seconds)
        return store.covered(count)

    def _fill_share(self, store: PartialGrid, shard: Shard) -> None:
        share = shard.share(len(store.done))
        for chunk in share:
            if store.done[chunk]:
                continue
            try:
                store.put(chunk, self.cells.losses(store.cells_of(chunk), store.strategy))
            except torch.OutOfMemoryError as error:
                raise RuntimeError(
                    f"out of memory with {store.strategy.chunk} cells at a time, which all shards of a grid share: give a "
                    "smaller chunk, and another file"
                ) from error
            self.estimate.part_done(int(store.done[share].sum()), len(share), store.resumable.seconds)

    def _judged(self, store: PartialGrid, baseline: float) -> Grid:
        """The grid, by the plain loop from the start again where the plain loop gives other losses inside."""
        while True:
            filled = self._filled(store)
            losses, difference = with_centre(filled, self.cells, baseline, store.strategy.precision)
            self.cells.plane.release()  # in float64 a point takes twice the memory
            noise = float_noise(self.cells, losses, filled.evaluated, strategy=store.strategy, num_random=self.noise_cells)
            objection = interior_objection(self.cells, losses, filled.evaluated, noise, store.strategy)
            if objection is None:
                return self._finished(filled, difference, noise, baseline, store)
            store.begin(replace(EAGER, note=store.strategy.note).with_note(objection))
            self.estimate.restart()

    def _finished(
        self, filled: FilledGrid, difference: float | None, noise: FloatNoise, baseline: float, store: PartialGrid
    ) -> Grid:
        """The grid with all that is known about it."""
        cells, strategy, shape = self.cells, store.strategy, self.cells.order.shape
        info = GridInfo(
            directions=self.directions.info,
            baseline_loss=baseline,
            centre_difference=difference,
            rho=cells.rho,
            span_found=self.span_found,
            noise=noise,
            tolerance=self.tolerance,
            refinement=tuple(filled.measured),
            largest_held_out_error=filled.largest_held_out_error,
            evaluation=strategy_info(cells, strategy),
            seconds=store.resumable.seconds,
        )
        return Grid(filled.losses.reshape(shape), cells.axes, info, filled.evaluated.reshape(shape))
