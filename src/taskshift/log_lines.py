"""Messages on the terminal, above a live display where there is one."""

from __future__ import annotations

import logging


class Lines(logging.Handler):
    """Prints to what standard output is at that moment: a live display puts itself in its place while it shows."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), flush=True)
        except (ValueError, OSError):  # a closed output, as logging's own handlers treat it
            self.handleError(record)
