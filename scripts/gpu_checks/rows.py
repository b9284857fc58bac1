"""What a check tells, and how long all of them may take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from taskshift.clock import stopwatch

HOLDS, FALLS_SHORT, FAILED, LEFT_OUT, TOLD = "yes", "no", "FAILED", "left out", ""


@dataclass(frozen=True)
class Row:
    """A line of the last table."""

    what: str
    found: str
    beside: str = ""  # the figure that it is to be read beside
    verdict: str = TOLD  # whether it is as it has to be


@dataclass
class Budget:
    """The seconds that are left of so many."""

    seconds: float
    begun: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.begun)


@dataclass(frozen=True)
class Place:
    """Where the checks run."""

    device: torch.device
    budget: Budget
    quick: bool  # small sizes, to try whether all of it runs: what has to be fast is not judged

    def timed(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds of `work()`, the card's own included, and what came of it."""
        with stopwatch(self.device) as watch:
            result = work()
        return watch.seconds, result
