"""Which layers an evaluator looks at."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The `names` that the glob `pattern` matches, in their order; none is an error that lists them."""
    names = list(names)
    chosen = [name for name in names if fnmatchcase(name, pattern)]
    if not chosen:
        there = ", ".join(names) or "none: it has a single layer"
        raise ValueError(f"layers={pattern!r} matches no layer of this net; it has {there}")
    return chosen
