"""What a script does with its runs: the functions that it hands to Hydra's command and to the launcher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]
"""A run's config, resolved and plain."""

JobFunction = Callable[[dict[str, Any], Sequence[str]], Any]
"""A script's own: (resolved and checked config, the overrides it was composed from) → whatever comes of it."""

Together = Callable[[Sequence[dict[str, Any]], Sequence[Sequence[str]]], Sequence[Exception | None]]
"""A script's own for several runs: (their configs, the overrides of each) → what each raised, or None."""


@dataclass(frozen=True)
class Script:
    """What the script that began a sweep does with a run, and with several together, if it can."""

    job: JobFunction
    together: Together | None = None
