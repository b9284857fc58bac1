"""Where the runs of a sweep are, and how long the rest will take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from taskshift.intact import read_json
from taskshift.run_folder import read_row, read_rows, whole_lines
from taskshift.sweeps.records import runs_in_words
from taskshift.sweeps.states import OPEN, RunState, state_of, states
from taskshift.sweeps.sweep_folder import SweepFolder

COLOURS = {"done": "green", "diverged": "magenta", "running": "cyan", "pending": "yellow", "new": "bright_black"}
"""What a state is shown in; all others are red."""


@dataclass(frozen=True)
class Length:
    """How long a run is to be, as far as that is known."""

    num_tasks: int | None = None
    epochs: int | None = None  # per task


@dataclass(frozen=True)
class Standing:
    """How far one run is."""

    label: str
    state: RunState
    length: Length
    tasks_ended: int
    epochs_ended: int  # over all tasks
    task_seconds: Sequence[float]  # of each task that ended

    @property
    def tasks_left(self) -> float | None:
        """Tasks still to come, a begun one counted by its epochs; None where the run's length is not known."""
        if self.length.num_tasks is None:
            return None
        begun = self.epochs_ended / self.length.epochs if self.length.epochs else 0.0
        return max(0.0, self.length.num_tasks - max(self.tasks_ended, begun))


def show_status(folder: Path, console: Console) -> None:
    """Print where the runs of a sweep are, or one run; raises Fault for a folder that is neither."""
    if (folder / "run.json").exists():
        print_status(str(folder), [standing(folder.resolve().name, folder, state_of(folder))], console)
        return
    sweep = SweepFolder(folder)
    about = sweep.read()
    print_status(f"{about['name']} · {about['command']}", standings(sweep, states(sweep)), console)


def standings(sweep: SweepFolder, known: Mapping[str, RunState]) -> list[Standing]:
    """How far each run of a sweep is. A run that has not begun is as long as the others, unless its length is swept."""
    entries = sweep.runs()
    lengths = {key: _length(_saved_config(sweep.run_folder(key)), entry["overrides"]) for key, entry in entries.items()}
    usual = next((length for length in lengths.values() if length.num_tasks is not None), Length())
    return [
        standing(entry["label"], sweep.run_folder(key), known[key], _filled(lengths[key], usual))
        for key, entry in entries.items()
    ]


def standing(label: str, folder: Path, state: RunState, length: Length | None = None) -> Standing:
    """How far the run in `folder` is, from its record as far as it is written."""
    length = length or _length(_saved_config(folder), {})
    lines = whole_lines(folder)
    seconds = [row["task/seconds"] for row in read_rows(folder, mentioning='"task/seconds"')]
    epochs = _epochs_ended(read_row(folder, lines[-1], len(lines))) if lines else 0
    return Standing(label, state, length, len(seconds), epochs, seconds)


def seconds_left(runs: Sequence[Standing]) -> float | None:
    """How long the rest takes if as many runs go on at once as now, at the mean time per task; None where that is unknown.

    No sooner than the longest single run. Runs that nothing is at work on and that wait for nothing do not count.
    """
    seconds = [task for run in runs for task in run.task_seconds]
    going_on = [run for run in runs if run.state.state in OPEN]
    at_once = sum(run.state.state == "running" for run in runs)
    left = [run.tasks_left for run in going_on]
    if not seconds or not at_once or None in left:
        return None
    return sum(seconds) / len(seconds) * max(sum(left) / at_once, *left)


def print_status(title: str, runs: Sequence[Standing], console: Console) -> None:
    """Print how many runs are in each state, where those are that are not done, and the time left."""
    console.print(title, style="bold", highlight=False, markup=False, soft_wrap=True)
    counts = Counter(run.state.state for run in runs)
    words = [f"[{_colour(state)}]{number} {state}[/]" for state, number in counts.most_common()]
    console.print(f"{runs_in_words(len(runs))}: {', '.join(words)}", highlight=False, soft_wrap=True)
    unfinished = [run for run in runs if run.state.state != "done"]
    if unfinished:
        console.print(_table(unfinished))
        console.print(_time_left(runs), highlight=False, soft_wrap=True)


def _table(runs: Sequence[Standing]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("run", "state", "tasks done", "epochs done", "why"):
        table.add_column(name, justify="right" if name.endswith("done") else "left", overflow="fold")
    for run in runs:
        tasks, epochs = run.length.num_tasks, run.length.epochs
        all_epochs = tasks * epochs if tasks and epochs else None
        cells = [_of(run.tasks_ended, tasks), _of(run.epochs_ended, all_epochs)]
        table.add_row(_plain(run.label), f"[{_colour(run.state.state)}]{run.state.state}[/]", *cells, _plain(run.state.why))
    return table


def _time_left(runs: Sequence[Standing]) -> str:
    at_once = sum(run.state.state == "running" for run in runs)
    if not at_once:
        return "time left: nothing is running"
    seconds = seconds_left(runs)
    if seconds is None:
        return "time left: known when a first task has ended"
    return f"time left: about {timedelta(seconds=round(seconds))}, {at_once} at once, from the mean time of the tasks that ended"


def _saved_config(folder: Path) -> Mapping[str, Any]:
    """What the run was told, where it has begun; from run.json, as reading a long yaml takes longer."""
    path = folder / "run.json"
    return read_json(path)["config"] if path.exists() else {}


def _length(config: Mapping[str, Any], overrides: Mapping[str, str]) -> Length:
    def number(name: str) -> int | None:
        value = overrides.get(name, config.get(name))
        return None if value is None else int(value)

    return Length(number("num_tasks"), number("epochs"))


def _filled(length: Length, usual: Length) -> Length:
    tasks = usual.num_tasks if length.num_tasks is None else length.num_tasks
    return Length(tasks, usual.epochs if length.epochs is None else length.epochs)


def _epochs_ended(last: Mapping[str, float]) -> int:
    """Epochs over all tasks up to a row: that of an epoch's end, of a task's end, or of a task's start."""
    has_ended = "epoch_loss" in last or "task/seconds" in last
    return int(last["global_epoch"]) + has_ended


def _of(number: int, all_of_them: int | None) -> str:
    return f"{number} of {'?' if all_of_them is None else all_of_them}"


def _colour(state: str) -> str:
    return COLOURS.get(state, "red")


def _plain(words: str) -> Text:
    return Text(" ".join(words.split()))
