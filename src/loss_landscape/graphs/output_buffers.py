"""Memory that is used again: on a CPU fresh memory costs more than a small product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def reused(function: Callable[..., Tensor], into: Callable[..., Tensor] | None = None) -> Callable[..., Tensor]:
    """The function with its last result as the memory of the next one of that form; `into` is the same function with `out`."""
    into = into or function
    last: Tensor | None = None
    form: list[Any] = []

    def into_last(*arguments: Any) -> Tensor:
        nonlocal last, form
        now = [(one.shape, one.dtype) if isinstance(one, Tensor) else one for one in arguments]
        if last is not None and now == form:
            return into(*arguments, out=last)
        last, form = function(*arguments), now
        return last

    return into_last
