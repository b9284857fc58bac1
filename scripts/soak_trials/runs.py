"""The run that is disturbed, the undisturbed one that it is compared with, and what a trial's outcome is called."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskshift.compare import differences
from taskshift.config.command import compose

WORDS = (
    "debug=tiny", "recorder=none", "num_threads=1", "run_name=one", "checkpoints.every_seconds=0", "net.norm=batch",
    "lla.logging.save_plots=false", "lla.enable_mode_connectivity=true",
)  # fmt: skip
PATIENCE = 600.0  # seconds for one attempt
SAME, TOLD = "the same bits", "a sentence, then the same bits"
ATTEMPT = Path(__file__).parent / "attempt.py"


@dataclass(frozen=True)
class Reference:
    """A run that nobody disturbed: its config, its folder, how long it took, and how many things it did to files, twice."""

    config: dict[str, Any]
    folder: Path
    seconds: float
    events: int


@dataclass(frozen=True)
class Attempt:
    """How one attempt ended."""

    status: int
    said: str

    @property
    def is_told(self) -> bool:
        """Whether it ended in a sentence, and in no traceback."""
        return self.status == 1 and "Traceback" not in self.said and bool(self.said.strip())


def reference(place: Path) -> Reference:
    """Carry out the run that others are compared with."""
    import time

    config, begin = compose(*WORDS), time.monotonic()
    place.mkdir()
    ended = attempt(place, config, "count", "events")
    if ended.status != 0:
        raise SystemExit(f"the undisturbed run failed:\n{ended.said}")
    return Reference(config, folder_in(place), time.monotonic() - begin, int((place / "events").read_text()))


def begun(place: Path, config: dict[str, Any], *how: str) -> subprocess.Popen[str]:
    """An attempt at the run in the working directory `place`, in a process of its own; `how` are the words of attempt.py."""
    (place / "config.json").write_text(json.dumps(config))
    command = [sys.executable, str(ATTEMPT), "config.json", *how]
    return subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def attempt(place: Path, config: dict[str, Any], *how: str) -> Attempt:
    """The same, to its end."""
    with begun(place, config, *how) as process:
        try:
            said, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            return Attempt(-1, "it hung")
    return Attempt(process.returncode, said)


def folder_in(place: Path) -> Path:
    """The run's folder."""
    (folder,) = place.glob("outputs/*/*/one")
    return folder


def completed(undisturbed: Reference, place: Path, outcome: str) -> str:
    """`outcome`, where the run comes to its end now, with the bits of the undisturbed one."""
    ended = attempt(place, undisturbed.config)
    if ended.status != 0:
        return f"WRONG: status {ended.status}: {ended.said[-300:]}"
    found = differences(folder_in(place), undisturbed.folder)
    left = [path.name for path in folder_in(place).rglob(".*") if path.name != ".lock"]
    return f"WRONG: {found[:3]} {left[:3]}" if found or left else outcome
