"""The one place where a fault becomes a sentence and an exit status."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from taskshift.faults import Fault

INTERRUPTED = 130
"""The exit status of a command that Ctrl-C ended: 128 and the signal's number."""


@contextlib.contextmanager
def sentences() -> Iterator[None]:
    """Around a whole command: what a user can mend is printed without a traceback, a bug keeps its own."""
    try:
        yield
    except Fault as fault:
        end(str(fault))
    except KeyboardInterrupt:
        end(
            "stopped by Ctrl-C; a run that had begun goes on with the command it printed first, a sweep with its own",
            INTERRUPTED,
        )
    except BrokenPipeError:  # who was reading, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


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
