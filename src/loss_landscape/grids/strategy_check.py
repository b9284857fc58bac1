"""Which strategy a grid is evaluated by: the one asked for, if its first cells agree with the plain loop and fit into memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from loss_landscape.grids.cells import GridCells
from loss_landscape.grids.partial_grid import PartialGrid
from loss_landscape.results.info import FloatNoise
from loss_landscape.surface.strategy import EAGER, EvaluationStrategy
from loss_landscape.surface.strategy_check import FAILURES, alternatives, failure_of, is_off, objection_to

NUM_INTERIOR = 8
CELLS_A_JUDGED = 25  # a plain cell takes what one or two of the grid's take: 4 % of a small grid, less of a large one


def begin(store: PartialGrid, cells: GridCells, strategy: EvaluationStrategy) -> None:
    """Begin the grid by this strategy if its first cells agree with the plain loop, else by one with less to go wrong.

    A net that branches on its values, or writes to its own tensors, can't be traced, or only wrongly and without an error. The
    chunks that were evaluated for the comparison are kept.
    """
    for candidate in alternatives(strategy):
        checked = replace(candidate, note=strategy.note)
        chunks, objection = _first_chunks(cells, checked)
        if objection is None:
            store.begin(checked)
            for chunk, losses in enumerate(chunks):
                store.put(chunk, losses)
            return
        strategy = strategy.with_note(objection)


def begin_in_memory(store: PartialGrid, cells: GridCells, strategy: EvaluationStrategy) -> None:
    """The same, by half the chunk again whenever memory runs out."""
    while not store.has_begun:
        try:
            begin(store, cells, strategy)
        except torch.OutOfMemoryError as error:
            strategy = smaller(strategy, error)


def smaller(strategy: EvaluationStrategy, error: torch.OutOfMemoryError) -> EvaluationStrategy:
    """The same by half the chunk; RuntimeError where it is a single cell."""
    if strategy.chunk == 1:
        raise RuntimeError(
            "out of memory with a single cell at a time; give the surface smaller batches, or evaluate it on the CPU"
        ) from error
    return strategy.halved().with_note(f"out of memory with {strategy.chunk} cells at a time")


def interior_objection(
    cells: GridCells, losses: np.ndarray, evaluated: np.ndarray, noise: FloatNoise, strategy: EvaluationStrategy
) -> str | None:
    """What speaks against a strategy that gave these `losses` [cells], by cells that are neither the origin nor a corner.

    A graph that holds a count or the way taken at a branch may be right at those three. Judged by the plain loop are
    NUM_INTERIOR random cells of those that were `evaluated`, one in CELLS_A_JUDGED at most, and those whose error against
    float64, `noise`, is more than a strategy's may be.
    """
    if strategy.name == "eager":
        return None
    suspects = [cell.cell for cell in noise.checked if is_off(cell.loss, cell.reference, cells.dtype)]
    suspected = [int(np.ravel_multi_index(cell, cells.order.shape)) for cell in suspects]
    judged = list(dict.fromkeys([*_interior(cells, evaluated), *suspected]))
    judged = [cell for cell in judged if cell not in cells.order.check_cells]
    if not judged:
        return None
    found = losses[judged]
    if strategy.precision is not None:  # its rounding would hide a wrong graph
        found = cells.losses(judged, replace(strategy, precision=None))
    return objection_to(strategy, found, cells.losses(judged, EAGER), cells.dtype)


def _interior(cells: GridCells, evaluated: np.ndarray) -> list[int]:
    """Random ones of the evaluated cells; the same each time."""
    candidates = np.setdiff1d(np.nonzero(evaluated)[0], cells.order.check_cells)
    count = min(NUM_INTERIOR, -(-len(evaluated) // CELLS_A_JUDGED))
    drawn = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(1))
    return candidates[drawn[:count].numpy()].tolist()


def _first_chunks(cells: GridCells, strategy: EvaluationStrategy) -> tuple[list[np.ndarray], str | None]:
    """The losses of the first chunks by a strategy, and what speaks against it; of the plain loop neither."""
    if strategy.name == "eager":
        return [], None
    checked, order = cells.order.check_cells, cells.order.cells
    try:
        starts = range(0, len(checked), strategy.chunk)
        first = [cells.losses(order[start : start + strategy.chunk], strategy) for start in starts]
        found = np.concatenate(first)[: len(checked)]
        if strategy.precision is not None:  # its rounding would hide a wrong graph
            found = cells.losses(checked, replace(strategy, precision=None))
    except torch.OutOfMemoryError:
        raise
    except FAILURES as error:
        return [], failure_of(strategy, error)
    return first, objection_to(strategy, found, cells.losses(checked, EAGER), cells.dtype)
