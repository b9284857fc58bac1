"""The one place where a fault becomes a sentence and an exit status."""

from __future__ import annotations

import codecs
import contextlib
import functools
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from taskshift.faults import Fault

INTERRUPTED = 130
"""The exit status of a command that Ctrl-C ended: 128 and the signal's number."""


TERMINATED = 143
"""The same of one that was told to end, by `kill` or by a scheduler."""


SPINS = "10000"
"""How often a thread of OpenMP looks again before it sleeps: microseconds. 300 000, its own choice, keep a core from others."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


SPOKEN = str.maketrans(
    {"…": "...", "–": "-", "−": "-", "→": "->", "·": "-", "±": "+/-", "×": "x", "λ": "lambda", "₁": "1", "‖": "|", "θ": "theta"}
)
"""What stands for a sign that a terminal's character set lacks."""


def print_anything() -> None:
    """Let no text fail for a terminal, or a file in its place, whose character set lacks some sign of it."""
    codecs.register_error("spoken", _spoken)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="spoken")


def _spoken(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(SPOKEN)
    return text.encode("ascii", "replace").decode(), error.end


def _terminated(signum: int, frame: object) -> NoReturn:
    raise Terminated


@contextlib.contextmanager
def sentences() -> Iterator[None]:
    """Around a whole command: what a user can mend is printed without a traceback, a bug keeps its own."""
    print_anything()
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    except Fault as fault:
        end(str(fault))
    except KeyboardInterrupt as stop:
        by, status = ("SIGTERM", TERMINATED) if isinstance(stop, Terminated) else ("Ctrl-C", INTERRUPTED)
        end(f"stopped by {by}; a run that had begun goes on with the command it printed first, a sweep with its own", status)
    except BrokenPipeError:  # who was reading, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def faults_end_here(function: Callable[..., Any]) -> Callable[..., Any]:
    """Inside Hydra, which lets SystemExit pass and adds lines of its own to anything else."""

    @functools.wraps(function)
    def wrapped(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Fault as fault:
            end(str(fault))

    return wrapped


def end(text: str, status: int = 1) -> NoReturn:
    """Print `text` where errors go, and leave."""
    sys.stdout.flush()
    print(text, file=sys.stderr)
    raise SystemExit(status)
