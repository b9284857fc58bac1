"""A limit on the time that a call may take."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

Result = TypeVar("Result")


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """What `call()` returns or raises, TimeoutError where it has not come to its end after so many seconds.

    It runs in a thread of its own, which goes on then and is left behind: Python can end no thread, and a process does not wait
    for this one.
    """
    answers: SimpleQueue[Callable[[], Result]] = SimpleQueue()

    def attempt() -> None:
        try:
            result = call()
        except BaseException as error:
            raised = error
            answers.put(lambda: _raise(raised))
        else:
            answers.put(lambda: result)

    threading.Thread(target=attempt, daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"no answer within {seconds:g} seconds") from None
    return answer()


def _raise(error: BaseException) -> Result:
    raise error
