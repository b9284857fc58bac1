"""Arrays as text inside a page: two bytes a number, decoded when they are looked at."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

SPECIAL = ("nan", "inf", "-inf", "zero")
"""What the four highest codes stand for, downwards."""

MARGIN = 16
"""Codes kept free for them."""

NARROW_DECADES = 5.5
"""Up to here steps of a logarithmic scale of two bytes are finer than 1e-4 of the value; beyond, a number takes three."""


class Block:
    """Arrays and facts that are needed together, as one piece of text.

    The text is base64 of gzip of: the length of the facts (4 bytes, little endian), the facts in JSON, the arrays one after the
    other. An array is written as codes on a scale of its own, linear, or logarithmic for numbers that are not negative; each row
    as differences, all low bytes before all higher ones, which gzip likes. NaN, ∞, −∞ and 0 have codes of their own.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def add(self, values: np.ndarray) -> dict[str, Any]:
        """Put `values` of any shape into the block; what the page needs to find and decode them."""
        scale, codes, width = _coded(np.asarray(values, dtype=np.float64))
        data = _packed(codes, width)
        entry = {"at": self._length, "shape": list(np.shape(values)), "width": width, **scale}
        self._parts.append(data)
        self._length += len(data)
        return entry

    def text(self, facts: Mapping[str, Any]) -> str:
        """The block with its `facts`, the same text for the same content."""
        head = json_text(facts).encode()
        whole = b"".join([len(head).to_bytes(4, "little"), head, *self._parts])
        return base64.b64encode(gzip.compress(whole, 9, mtime=0)).decode("ascii")


def json_text(value: Any) -> str:
    """JSON that may stand inside a script element, numbers with nine digits; NaN and ∞ become strings, which JSON has not."""
    text = json.dumps(_plain(value), ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float | np.floating):
        return _nine_digits(float(value))
    return int(value) if isinstance(value, np.integer) else value


def _nine_digits(value: float) -> float | int | str:
    """Nine digits are more than float32 has, and less than libraries of mathematics disagree about."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    rounded = float(f"{value:.9g}")
    return int(rounded) if rounded == int(rounded) and abs(rounded) < 1e9 else rounded


def _coded(values: np.ndarray) -> tuple[dict[str, Any], np.ndarray, int]:
    """The scale, the codes and how many bytes a code has."""
    counted = values[np.isfinite(values)]
    is_log = _is_logarithmic(counted)
    if is_log:
        counted = counted[counted > 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        places = np.log10(values) if is_log else values
        ends = np.log10([counted.min(), counted.max()]) if is_log else _ends(counted)
    low, high = float(ends[0]), float(ends[1])
    width = 3 if is_log and high - low > NARROW_DECADES else 2
    steps = 256**width - MARGIN
    codes = np.zeros(values.shape, dtype=np.int64)
    usual = np.isfinite(values) & np.isfinite(places)
    with np.errstate(over="ignore"):
        share = (places[usual] / 2 - low / 2) / ((high / 2 - low / 2) or 1.0)  # halves: the range itself may overflow
    codes[usual] = np.rint(np.clip(share, 0.0, 1.0) * steps).astype(np.int64)
    special = (np.isnan(values), values == np.inf, values == -np.inf, (values == 0) & ~usual)
    for number, cells in enumerate(special, start=1):
        codes[cells] = 256**width - number
    return {"log": is_log, "low": low, "high": high}, codes, width


def _is_logarithmic(finite: np.ndarray) -> bool:
    """Whether values of one sign span a factor of two or more: on a linear scale the small ones would lose digits."""
    positive = finite[finite > 0]
    return bool(positive.size and finite.min() >= 0 and positive.max() >= 2 * positive.min())


def _ends(finite: np.ndarray) -> tuple[float, float]:
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _packed(codes: np.ndarray, width: int) -> bytes:
    """Codes as differences along the last axis, modulo what `width` bytes hold; byte by byte, the low ones first."""
    if not codes.size:
        return b""
    rows = codes.reshape(-1, codes.shape[-1]) if codes.ndim else codes.reshape(1, 1)
    steps = np.diff(rows, axis=1, prepend=0) % 256**width
    flat = steps.reshape(-1)
    return b"".join(((flat >> 8 * byte) & 255).astype(np.uint8).tobytes() for byte in range(width))
