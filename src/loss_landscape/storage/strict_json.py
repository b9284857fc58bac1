"""JSON without NaN and Infinity, which no standard knows: such numbers are kept as objects, and read again as numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

NUMBER = "number"
"""The only key of an object that stands for a number that is not finite: {"number": "nan"}."""


def dumps(value: Any, **options: Any) -> str:
    """`value` as strict JSON."""
    return json.dumps(encoded(value), allow_nan=False, **options)


def loads(text: str) -> Any:
    """What `dumps` wrote."""
    return json.loads(text, object_hook=_number)


def encoded(value: Any) -> Any:
    """`value` with every number that is not finite as an object."""
    if isinstance(value, float) and not math.isfinite(value):
        return {NUMBER: repr(value)}
    if isinstance(value, Mapping):
        return {str(key): encoded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [encoded(one) for one in value]
    return value


def _number(entries: dict[str, Any]) -> Any:
    return float(entries[NUMBER]) if entries.keys() == {NUMBER} else entries
