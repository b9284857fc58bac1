"""What may stand in a row: numbers."""

from __future__ import annotations

import numbers
from typing import Any


def scalar(key: str, value: Any) -> int | float:
    """`value` as an int or a float; infinities and NaN stay, since a diverging net is a result.

    Truth values become 0 and 1; NumPy's and torch's 0-d values are unwrapped. Raises TypeError, naming `key`, for all else.
    """
    number = value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
    if isinstance(number, numbers.Integral):
        return int(number)
    if isinstance(number, numbers.Real):
        return float(number)
    raise TypeError(
        f"the metric {key!r} is {_described(value)}; a row holds single numbers, so save arrays, texts and pictures as artifacts"
    )


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {tuple(shape)}" if shape is not None else f" {value!r}")
