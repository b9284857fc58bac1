"""What runs that are carried out together share."""

from __future__ import annotations

from taskshift.clock import SharedClock
from taskshift.execution.shared import Shared

SECONDS_BETWEEN_ROWS = 5.0
"""How long rows may wait for those of the others, to go to the disk together with them."""


class Stack:
    """The programs of so many runs, when all of them save, and when they write their rows."""

    def __init__(self, num_members: int, every_seconds: float):
        self.programs = Shared(num_members)
        self.saving, self.writing = SharedClock(every_seconds), SharedClock(SECONDS_BETWEEN_ROWS)

    def look(self) -> None:
        """Ask the clocks, once for all."""
        self.saving.look()
        self.writing.look()
