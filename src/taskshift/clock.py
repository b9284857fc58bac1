"""Time and memory, measured so that a GPU's queue does not hide work."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Says when `every_seconds` have passed since its last restart."""

    def __init__(self, every_seconds: float):
        self.every_seconds = every_seconds
        self.restart()

    def restart(self) -> None:
        self._last = time.monotonic()

    def elapsed(self) -> float:
        """Seconds since the last restart."""
        return time.monotonic() - self._last

    def due(self) -> bool:
        return self.elapsed() >= self.every_seconds


class SharedClock:
    """A clock that several runs go by: each has `hands` of its own, due once after every time that the clock was."""

    def __init__(self, every_seconds: float):
        self._clock, self.times = Clock(every_seconds), 0

    def look(self) -> None:
        """Let it be due for all where the seconds have passed."""
        if self._clock.due():
            self.times += 1
            self._clock.restart()

    def hands(self) -> Hands:
        return Hands(self)


class Hands:
    """What a run sees of a clock that others go by too."""

    def __init__(self, clock: SharedClock):
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        self._seen = self._clock.times

    def due(self) -> bool:
        return self._clock.times > self._seen


class Stopwatch:
    """Seconds between entering and leaving `stopwatch(device)`."""

    seconds: float = 0.0


@contextmanager
def stopwatch(device: torch.device) -> Iterator[Stopwatch]:
    """Time a block, waiting for the device at both ends."""
    watch = Stopwatch()
    synchronize(device)
    begin = time.perf_counter()
    yield watch
    synchronize(device)
    watch.seconds = time.perf_counter() - begin


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_mb(device: torch.device) -> float:
    """The most memory ever held, in MiB: allocated on the device where it is CUDA, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
