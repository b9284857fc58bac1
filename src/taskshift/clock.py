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
