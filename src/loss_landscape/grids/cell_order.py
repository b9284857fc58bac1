"""In which order a grid's cells are evaluated: coarse first, so that whatever part is finished is a picture of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

MIN_CELLS_A_SIDE = 11  # of the coarsest level: with 6, six of 5600 planes tried held a cell beyond their tolerance, with 11 none


@dataclass(frozen=True, eq=False)
class CellOrder:
    """The cells of a grid, by their index in its flattened array, level by level; a function of `axes` alone.

    The levels of an axis are nested: each has every second place of the next finer one, and the last. Within a level the cells
    come in a fixed random order. First of all come those that a strategy is checked by: that nearest to the origin, two corners.
    """

    axes: tuple[np.ndarray, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.axes)

    @cached_property
    def levels(self) -> list[tuple[np.ndarray, ...]]:
        """The places along each axis that each level holds, the coarsest first."""
        each = [_levels_of(length) for length in self.shape]
        depth = min(len(levels) for levels in each)
        return list(zip(*(levels[-depth:] for levels in each), strict=True))

    @cached_property
    def ranks(self) -> np.ndarray:
        """The level that each cell comes with, [cells]."""
        by_axis = [_ranks_of([level[d] for level in self.levels]) for d in range(len(self.axes))]
        ranks = np.stack(np.broadcast_arrays(*np.ix_(*by_axis))).max(axis=0).reshape(-1)
        ranks[self.check_cells] = 0
        return ranks

    @cached_property
    def check_cells(self) -> list[int]:
        """The cell nearest to the origin and two corners."""
        distances = sum(np.square(axis / np.abs(axis).max()) for axis in np.ix_(*self.axes))
        return list(dict.fromkeys([int(distances.argmin()), 0, distances.size - 1]))

    @cached_property
    def cells(self) -> np.ndarray:
        """All cells in their order."""
        drawn = torch.randperm(len(self.ranks), generator=torch.Generator().manual_seed(0)).numpy()
        drawn[self.check_cells] = np.arange(-len(self.check_cells), 0)
        return np.lexsort((drawn, self.ranks))

    def through(self, level: int) -> int:
        """How many cells the levels up to this one hold."""
        return int((self.ranks <= level).sum())


def _levels_of(length: int) -> list[np.ndarray]:
    levels = [np.arange(length)]
    while len(coarser := np.unique(np.append(levels[0][::2], length - 1))) >= MIN_CELLS_A_SIDE:
        levels.insert(0, coarser)
    return levels


def _ranks_of(levels: Sequence[np.ndarray]) -> np.ndarray:
    ranks = np.empty(len(levels[-1]), dtype=np.int64)
    for rank in reversed(range(len(levels))):
        ranks[levels[rank]] = rank
    return ranks
