"""Numbers as cards and captions have them."""

from __future__ import annotations

import math
from collections.abc import Iterable


def share(value: float, error: float = math.nan) -> str:
    """A share in percent, with its standard error where that is known."""
    if not math.isfinite(value):
        return number(value)
    return f"{100 * value:.1f} %" + (f" ± {100 * error:.1f}" if math.isfinite(error) else "")


def number(value: float, error: float = math.nan) -> str:
    """A number of four digits, with its error of two where that is known."""
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if math.isnan(value):
        return "not a number"
    return f"{value:.4g}" + (f" ± {error:.2g}" if math.isfinite(error) else "")


def sentences(parts: Iterable[str]) -> str:
    """Parts that follow on each other, each as a sentence; a symbol at a sentence's beginning stays as it is."""
    return " ".join(f"{part[0].upper() if part[0].isascii() else part[0]}{part[1:]}." for part in parts if part)


def tasks_in_words(count: int) -> str:
    """`1 task`, `5 tasks`."""
    return f"{count} task" if count == 1 else f"{count} tasks"
