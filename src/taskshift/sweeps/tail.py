"""What runs say while they are at work, line by line."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from taskshift.sweeps.states import OPEN, state_of, states
from taskshift.sweeps.sweep_folder import SweepFolder

FIRST_LINES = 3
"""How many lines of a log are shown to begin with, where the run is at work."""

PAUSE_SECONDS = 1.0
PAUSES_PER_LOOK = 5  # at the states, which may cost a call of the scheduler's


def tail(folder: Path, say: Callable[[str], None]) -> None:
    """Hand to `say` what a run, or the runs of a sweep, add to their train.log, each line of a sweep behind its run's label.

    Of a run that is at work the last lines come first. Ends when none is at work or waiting, or by Ctrl-C. Raises Fault for a
    folder that is neither.
    """
    if (folder / "run.json").exists():
        logs = {folder.name: Log(folder / "train.log", "")}
        follow(logs, lambda: {folder.name: state_of(folder).state}, say)
        return
    sweep = SweepFolder(folder)
    logs = {key: Log(sweep.run_folder(key) / "train.log", f"{entry['label']} | ") for key, entry in sweep.runs().items()}
    follow(logs, lambda: {key: state.state for key, state in states(sweep).items()}, say)


def follow(logs: Mapping[str, Log], look: Callable[[], Mapping[str, str]], say: Callable[[str], None]) -> None:
    """Hand new lines to `say` until `look`, which gives each log's run's state, finds none at work; then how they ended."""
    for key, state in look().items():
        logs[key].skip(keeping=FIRST_LINES if state == "running" else 0)
    pauses = 0
    try:
        while True:
            if pauses % PAUSES_PER_LOOK == 0:
                now = look()
            for log in logs.values():
                for line in log.new_lines():
                    say(line)
            if not any(state in OPEN for state in now.values()):
                say("nothing is at work: " + ", ".join(f"{number} {state}" for state, number in Counter(now.values()).items()))
                return
            time.sleep(PAUSE_SECONDS)
            pauses += 1
    except KeyboardInterrupt:
        return


@dataclass
class Log:
    """A file that grows, read from where it was left; `before` stands before each line."""

    path: Path
    before: str
    position: int = 0

    def skip(self, keeping: int) -> None:
        """Go to the end, `keeping` the last lines."""
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        self.position = sum(map(len, lines[: max(0, len(lines) - keeping)]))

    def new_lines(self) -> list[str]:
        """The whole lines that were added since the last time."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self.position)
            whole, end, _ = file.read().rpartition(b"\n")
        self.position += len(whole) + len(end)
        return [f"{self.before}{line.decode(errors='replace')}" for line in whole.split(b"\n")] if end else []
