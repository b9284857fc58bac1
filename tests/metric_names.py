"""The names in docs/METRICS.md, as patterns."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from taskshift.quantities import Quantity

DOCUMENT = Path(__file__).parents[1] / "docs" / "METRICS.md"
ROW = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)


def documented() -> list[Quantity]:
    """The names of the tables."""
    return [Quantity(name, "") for name in ROW.findall(DOCUMENT.read_text())]


def undocumented(names: Iterable[str]) -> list[str]:
    """Those of `names` that no table lists; `start/` may stand before any with a slash."""
    listed = documented()
    return [name for name in names if not any(one.placed(_at_the_end(name)) is not None for one in listed)]


def unused(names: Iterable[str]) -> list[str]:
    """What the tables list and none of `names` is."""
    names = [_at_the_end(name) for name in names]
    return [one.pattern for one in documented() if not any(one.placed(name) is not None for name in names)]


def _at_the_end(name: str) -> str:
    """What a number of a task's start is called at its end."""
    rest = name.removeprefix("start/")
    return rest if "/" in rest else name
