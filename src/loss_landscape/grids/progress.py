"""How long a grid still takes."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[float, float], None]
"""(fraction done, seconds left)."""


class Pace:
    """An estimate from the chunks of this call but the first, which prepares things for all.

    Every missing cell counts, also those that a tolerance may spare. `limit_hours` is for the whole grid, earlier calls included.
    """

    def __init__(self, progress: Progress | None, limit_hours: float | None):
        if limit_hours is not None and not limit_hours > 0:
            raise ValueError(f"abort_if_estimated_hours_over must be None or > 0, got {limit_hours}")
        self.progress, self.limit_hours = progress, limit_hours
        self.restart()

    def restart(self) -> None:
        """Forget what was seen: the chunks have another size now."""
        self._since, self._count = 0.0, -1

    def chunk_done(self, done: int, chunks: int, seconds: float) -> None:
        """`done` of the grid's chunks are finished after `seconds` in all; TimeoutError where the rest will take too long."""
        now = time.monotonic()
        self._count += 1
        if self._count == 0:
            self._since = now
            return
        if done == chunks:
            return
        left = (now - self._since) / self._count * (chunks - done)
        if self.progress is not None:
            self.progress(done / chunks, left)
        hours = (seconds + left) / 3600
        if self.limit_hours is not None and hours > self.limit_hours:
            raise TimeoutError(
                f"this grid would take about {hours:.2g} hours, more than abort_if_estimated_hours_over = {self.limit_hours}; "
                f"{done} of its {chunks} chunks are done (and kept, where a partial file was given): take a lower resolution or "
                "fewer batches, or raise the limit and go on"
            )

    def finished(self) -> None:
        """The grid is whole."""
        if self.progress is not None:
            self.progress(1.0, 0.0)
