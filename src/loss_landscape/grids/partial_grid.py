"""A grid that is not finished yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import Tensor

from loss_landscape.checkpointing import Finished, Resumable
from loss_landscape.surface.strategy import EvaluationStrategy


class PartialGrid:
    """The values of finished chunks and the strategy they were computed by, kept in `file` (None: nowhere).

    A chunk is `strategy.chunk` cells that follow each other in `order`; the last one may be shorter. The file's grid, with the
    strategy that it has, is gone on with where it is of this `identity`; else there is nothing yet, and no strategy.
    """

    def __init__(self, file: str | Path | None, identity: Callable[[], Iterable[Tensor | np.ndarray | str]], order: np.ndarray):
        self.order = order  # [cells], the cells in the order in which they are evaluated
        self.values = np.full(len(order), np.nan)  # [cells], float64, in the grid's own order
        self._strategy: EvaluationStrategy | None = None  # None: not chosen yet
        self.done = np.zeros(0, dtype=bool)  # [chunks]
        self.resumable = Resumable(file, lambda: [*identity(), order], self._state, kind="grid")
        if self.resumable.file is not None:
            self.resumable.seconds_before = self.absorb(self.resumable.file)

    @property
    def has_begun(self) -> bool:
        """Whether there is a strategy."""
        return self._strategy is not None

    @property
    def strategy(self) -> EvaluationStrategy:
        """How the values are computed, once that is chosen."""
        assert self._strategy is not None, "the grid has not begun"
        return self._strategy

    def absorb(self, file: Path) -> float:
        """Take over the finished chunks that `file` holds of this grid by this strategy; the seconds they took."""
        found = self.resumable.load(file)
        if found is None:
            return 0.0
        strategy, done = EvaluationStrategy(**found.facts["strategy"]), found.arrays["done"]
        if not self.has_begun:
            self.begin(strategy)
        if strategy != self.strategy:
            return 0.0
        for chunk in np.nonzero(done & ~self.done)[0].tolist():
            self.values[self.cells_of(chunk)] = found.arrays["values"][self.cells_of(chunk)]
        self.done |= done
        return found.seconds

    def begin(self, strategy: EvaluationStrategy) -> None:
        """Start, or start again, by this strategy: nothing is finished."""
        self._strategy = strategy
        self.values[:] = np.nan
        self.done = np.zeros(-(-len(self.order) // strategy.chunk), dtype=bool)

    def abandon(self) -> None:
        """Go back to before the beginning: the strategy did not work out."""
        self._strategy = None

    def missing(self, count: int) -> list[int]:
        """The chunks that the first `count` cells of the order lie in and that are not finished."""
        return np.nonzero(~self.done[: -(-count // self.strategy.chunk)])[0].tolist()

    def covered(self, count: int) -> np.ndarray:
        """Which cells lie in the chunks of the first `count` cells of the order, [cells] bool, in the grid's own order."""
        mask = np.zeros(len(self.order), dtype=bool)
        mask[self.order[: -(-count // self.strategy.chunk) * self.strategy.chunk]] = True
        return mask

    def finished(self) -> np.ndarray:
        """Which cells lie in finished chunks, [cells] bool, in the grid's own order."""
        mask = np.zeros(len(self.order), dtype=bool)
        mask[self.order] = np.repeat(self.done, self.strategy.chunk)[: len(self.order)]
        return mask

    def cells_of(self, chunk: int) -> np.ndarray:
        """The cells of a chunk."""
        return self.order[chunk * self.strategy.chunk : (chunk + 1) * self.strategy.chunk]

    def put(self, chunk: int, values: np.ndarray) -> None:
        """A chunk is finished."""
        self.values[self.cells_of(chunk)] = values
        self.done[chunk] = True
        self.resumable.save_by_the_clock()

    def _state(self) -> Finished | None:
        if not self.has_begun:
            return None
        return Finished({"values": self.values, "done": self.done}, {"strategy": asdict(self.strategy)})
