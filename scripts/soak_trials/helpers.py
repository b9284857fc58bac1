"""W&B's helper cannot start, or starts and never answers."""

from __future__ import annotations

import random
from pathlib import Path

from soak_trials.runs import SAME, Reference, attempt, completed
from taskshift.config.command import compose

PROGRAMS = ("#!/bin/sh\nexit 1\n", "#!/bin/sh\nexec sleep 20\n", "no program")


def broken(undisturbed: Reference, place: Path, draw: random.Random) -> str:
    """The run says so once, and goes on without its mirror."""
    helper = place / "helper"
    helper.write_text(draw.choice(PROGRAMS))
    helper.chmod(draw.choice((0o755, 0o644)))
    mirrored = undisturbed.config | {"recorder": compose("recorder=wandb")["recorder"]}
    ended = attempt(place, mirrored, "helper", str(helper))
    if ended.status != 0 or "W&B failed in starting, and the run goes on without" not in ended.said:
        return f"WRONG: status {ended.status}: {ended.said[-300:]}"
    return completed(undisturbed, place, SAME)
