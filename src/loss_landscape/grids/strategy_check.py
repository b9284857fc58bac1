"""Which strategy a grid is evaluated by: the one asked for, if its first cells agree with the plain loop and fit into memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from loss_landscape.grids.cells import GridCells
from loss_landscape.grids.partial_grid import PartialGrid
from loss_landscape.surface.strategy import EAGER, EvaluationStrategy
from loss_landscape.surface.strategy_check import FAILURES, alternatives, failure_of, objection_to


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
