"""Two processes at work in one folder."""

from __future__ import annotations

import random
import time
from pathlib import Path

from soak_trials.runs import SAME, TOLD, Attempt, Reference, begun, completed


def two(undisturbed: Reference, place: Path, draw: random.Random) -> str:
    """The second is refused in a sentence, or comes when the first has ended; the first is not disturbed."""
    with begun(place, undisturbed.config) as first:
        time.sleep(draw.uniform(0.0, 1.2) * undisturbed.seconds)
        with begun(place, undisturbed.config) as second:
            ends = [Attempt(process.wait(), process.stdout.read()) for process in (first, second)]
    refused = [end for end in ends if end.is_told and "another process is at work" in end.said]
    if sum(end.status == 0 for end in ends) + len(refused) != 2:
        return f"WRONG: {[(end.status, end.said[-200:]) for end in ends]}"
    return completed(undisturbed, place, TOLD if refused else SAME)
