"""What runs that are carried out together share."""

from __future__ import annotations

from collections.abc import Mapping

from taskshift.clock import SharedClock
from taskshift.data.labelled_data import LabelledData
from taskshift.execution.shared import SharedPrograms
from taskshift.recorders.recorder import Recorder

SECONDS_BETWEEN_ROWS = 5.0
"""How long rows may wait for those of the others, to go to the disk together with them."""


class StackShared:
    """The data sets and programs of so many runs, when all of them save, and when they write their rows."""

    def __init__(self, num_members: int, every_seconds: float):
        self.programs = SharedPrograms(num_members)
        self.data: dict[str, LabelledData] = {}
        self._is_shown = False
        self.saving, self.writing = SharedClock(every_seconds), SharedClock(SECONDS_BETWEEN_ROWS)

    def with_display_once(self, recorders: Mapping[str, Recorder]) -> Mapping[str, Recorder]:
        """A run's recorders; of displays none after the first call, for there is one terminal."""
        shown = self._is_shown
        self._is_shown = True
        return {name: one for name, one in recorders.items() if not (shown and one.is_display)}

    def look(self) -> None:
        """Ask the clocks, once for all."""
        self.saving.look()
        self.writing.look()
