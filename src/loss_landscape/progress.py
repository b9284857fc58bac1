"""How long work still takes."""

from __future__ import annotations

import time

from loss_landscape.checkpointing import Checkpointing


class ProgressEstimate:
    """The time left, estimated from the parts that this call finished, but the first, which prepares things for all.

    Every missing part counts, also those that a tolerance may spare. `max_hours` is for the whole, earlier calls included.
    """

    def __init__(self, checkpointing: Checkpointing):
        self.progress, self.max_hours = checkpointing.progress, checkpointing.max_hours
        self.restart()

    def restart(self) -> None:
        """Forget what was seen: the parts have another size now."""
        self._since, self._count = 0.0, -1

    def part_done(self, done: int, total: int, seconds: float) -> None:
        """`done` of `total` parts are finished after `seconds` in all; TimeoutError where the rest will take too long."""
        now = time.monotonic()
        self._count += 1
        if self._count == 0:
            self._since = now
            return
        if done == total:
            return
        left = (now - self._since) / self._count * (total - done)
        if self.progress is not None:
            self.progress(done / total, left)
        hours = (seconds + left) / 3600
        if self.max_hours is not None and hours > self.max_hours:
            raise TimeoutError(
                f"this would take about {hours:.2g} hours, more than max_hours = {self.max_hours}; {done} of its {total} parts "
                "are done (and kept, where a file was given): take a lower resolution or fewer batches, or raise the limit"
            )

    def finished(self) -> None:
        """All is done."""
        if self.progress is not None:
            self.progress(1.0, 0.0)
