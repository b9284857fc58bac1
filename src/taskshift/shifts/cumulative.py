"""States that follow from one another, asked for by number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

State = TypeVar("State")


class Cumulative(Generic[State]):
    """`state(k) = step(state(k - 1), k)` from `state(0) = first`, the same for k in any order.

    Only the latest state is kept: going on costs one step, going back starts from the first. `step` makes a new
    state; it must not change the old one.
    """

    def __init__(self, first: State, step: Callable[[State, int], State]):
        self.first, self.step = first, step
        self._number, self._latest = 0, first

    def __call__(self, number: int) -> State:
        """The state after `number` steps."""
        if number < self._number:
            self._number, self._latest = 0, self.first
        while self._number < number:
            self._latest = self.step(self._latest, self._number + 1)
            self._number += 1
        return self._latest
