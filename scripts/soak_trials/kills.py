"""A process that is killed, again and again, each time a little further on."""

from __future__ import annotations

import random
import signal
import subprocess
from pathlib import Path

from soak_trials.runs import SAME, Reference, attempt, begun, completed

MOST_KILLS = 3


def at_an_event(undisturbed: Reference, place: Path, draw: random.Random) -> str:
    """Killed before or after a file is written, renamed, removed or put onto the disk."""
    for _ in range(draw.randint(1, MOST_KILLS)):
        ended = attempt(place, undisturbed.config, "kill", str(draw.randint(1, undisturbed.events)))
        if ended.status not in (0, -signal.SIGKILL):
            return f"WRONG: status {ended.status}: {ended.said[-300:]}"
    return completed(undisturbed, place, SAME)


def at_a_moment(undisturbed: Reference, place: Path, draw: random.Random) -> str:
    """Killed, or told to end, after some seconds."""
    for _ in range(draw.randint(1, MOST_KILLS)):
        with begun(place, undisturbed.config) as process:
            try:
                process.wait(timeout=draw.uniform(0.2, 1.0) * undisturbed.seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(draw.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)))
            said, _ = process.communicate()
        if "Traceback" in said:
            return f"WRONG: {said[-300:]}"
    return completed(undisturbed, place, SAME)
