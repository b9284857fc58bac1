"""What a user can mend, said in sentences; `boundary.py` prints them and ends with status 1."""

import traceback


class Fault(Exception):
    """One or more sentences, each naming what was expected, what came, and what to do next."""

    def __init__(self, *sentences: str):
        super().__init__("\n".join(sentences))
        self.sentences = sentences


def told(error: Exception) -> str:
    """A sentence for what a user can mend, a traceback for a bug."""
    return str(error) if isinstance(error, Fault) else "".join(traceback.format_exception(error))
