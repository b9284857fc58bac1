"""Small runs for tests, made the way train.py makes them, in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taskshift.config.command import compose
from taskshift.run import run

TINY = ("debug=tiny", "recorder=none", "num_threads=1", "lla.logging.save_plots=false")
"""A run of a second: every evaluator at its smallest, no pictures."""


def run_in(root: Path, config: dict[str, Any], *, summary: bool = False) -> Path:
    """Run in the working directory `root`, with the summary's pictures and table if asked for; return the run's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        if not summary:
            patch.setattr("taskshift.run.summarise", lambda job: None)
        return run(config).path.resolve()


__all__ = ["TINY", "compose", "run_in"]
