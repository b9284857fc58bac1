"""The names in docs/METRICS.md, as patterns."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "docs" / "METRICS.md"
ROW = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)
PLACEHOLDERS = {"<k>": r"[1-9]\d*", "<layer>": r"[^/]+"}


def documented() -> dict[str, re.Pattern[str]]:
    """Each name of the tables → what it matches; `start/` may stand before any with a slash."""
    names = ROW.findall(DOCUMENT.read_text())
    return {name: re.compile(("(?:start/)?" if "/" in name else "") + _pattern(name)) for name in names}


def undocumented(names: Iterable[str]) -> list[str]:
    """Those of `names` that no table lists."""
    patterns = list(documented().values())
    return [name for name in names if not any(pattern.fullmatch(name) for pattern in patterns)]


def unused(names: Iterable[str]) -> list[str]:
    """What the tables list and none of `names` is."""
    names = list(names)
    return [listed for listed, pattern in documented().items() if not any(pattern.fullmatch(name) for name in names)]


def _pattern(name: str) -> str:
    parts = re.split(r"(<[a-z]+>)", name)
    return "".join(PLACEHOLDERS.get(part, r"\w+") if part.startswith("<") else re.escape(part) for part in parts)
