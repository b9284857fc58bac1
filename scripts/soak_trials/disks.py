"""A disk that is full in the middle of a file."""

from __future__ import annotations

import random
from pathlib import Path

from soak_trials.runs import SAME, TOLD, Reference, attempt, completed


def full(undisturbed: Reference, place: Path, draw: random.Random) -> str:
    """No file can grow beyond a size that is drawn between nothing and that of the largest one."""
    largest = max(path.stat().st_size for path in undisturbed.folder.rglob("*") if path.is_file())
    ended = attempt(place, undisturbed.config, "disk", str(draw.randint(1, largest)))
    if ended.status == 0:
        return completed(undisturbed, place, SAME)
    if not (ended.is_told and "cannot write in" in ended.said):
        return f"WRONG: status {ended.status}: {ended.said[-300:]}"
    return completed(undisturbed, place, TOLD)
