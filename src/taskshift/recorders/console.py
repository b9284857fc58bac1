"""A live line on the terminal: task, phase, epoch, loss, accuracy, time left; a lasting line at each task's end."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from rich.console import Console as Terminal
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from taskshift.recorders.recorder import Moment, Opening, Recorder

LATEST = {"epoch_loss": "loss", "epoch_accuracy": "accuracy", "test_loss": "test loss", "test_accuracy": "test accuracy"}
"""Names in the record that the live line shows, and what it calls them."""


PHASES = {"start": "measuring at its start", "train": "training", "end": "measuring at its end"}


class Console(Recorder):
    """Shows where a run is while standard output and error both are terminals; else it is silent and starts no thread.

    A tick only keeps the moment; a thread of rich draws it `refresh_per_second` times a second.
    """

    is_display = True

    def __init__(self, refresh_per_second: int = 4):
        if refresh_per_second < 1:
            raise ValueError(f"refresh_per_second is {refresh_per_second}; give at least 1")
        self.refresh_per_second = refresh_per_second
        self._live: Live | None = None
        self._moment: Moment | None = None
        self._latest: dict[str, float] = {}

    def open(self, opening: Opening) -> None:
        if not (sys.stdout.isatty() and sys.stderr.isatty()):
            return
        self._opening, self._time_left = opening, TimeLeft(opening.num_tasks, opening.epochs)
        for row in opening.rows:
            self._keep(row)
        self._live = Live(
            get_renderable=self._render,
            console=Terminal(stderr=True),
            refresh_per_second=self.refresh_per_second,
            transient=True,
        )
        self._live.start()

    def record(self, row: Mapping[str, float]) -> None:
        if self._live is None:
            return
        self._keep(row)
        if "task/seconds" in row:
            self._live.console.print(self._lasting_line(row), highlight=False)

    def tick(self, moment: Moment) -> None:
        if self._live is None:
            return
        self._moment = moment
        self._time_left.observe(moment, time.monotonic())

    def close(self, ok: bool) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _keep(self, row: Mapping[str, float]) -> None:
        self._latest |= {label: row[name] for name, label in LATEST.items() if name in row}

    def _lasting_line(self, row: Mapping[str, float]) -> Text:
        """What stays on the terminal of a task that has ended."""
        words = [f"task {int(row['task_idx']) + 1} of {self._opening.num_tasks}", *self._values()]
        words += [f"{row['task/seconds']:.1f} s", f"peak memory {row['task/memory_mb']:.0f} MB"]
        return Text(" · ".join(words))

    def _values(self) -> list[str]:
        return [f"{label} {value:.4g}" for label, value in self._latest.items()]

    def _render(self) -> Table:
        """The live lines, from the last moment; called by rich's thread."""
        moment, epochs = self._moment, self._opening.epochs
        lines = Table.grid()
        if moment is None:
            return lines
        where = f"epoch {moment.epoch + 1} of {epochs}" if moment.phase == "train" else moment.evaluator or ""
        words = [f"task {moment.task + 1} of {self._opening.num_tasks}", PHASES[moment.phase], where, *self._values()]
        lines.add_row(Text(" · ".join(word for word in words if word), no_wrap=True, overflow="ellipsis"))
        bar = Table.grid(padding=(0, 1))
        done = moment.task + self._time_left.trained(moment)
        left = words_for(self._time_left.seconds(moment, time.monotonic()), at_least=not self._time_left.tasks_seen)
        bar.add_row(ProgressBar(total=self._opening.num_tasks, completed=done, width=40), Text(left))
        lines.add_row(bar)
        return lines


class TimeLeft:
    """How long the rest of a run will take, from what each phase took in the tasks that this process saw.

    Before a first task has ended, only training can be told, by its share that is done; measuring counts as nothing until then.
    """

    def __init__(self, num_tasks: int, epochs: int):
        self.num_tasks, self.epochs = num_tasks, epochs
        self.tasks_seen = 0
        self._spent = dict.fromkeys(PHASES, 0.0)  # over the tasks seen
        self._current: dict[str, float] = {}  # phase → seconds, of the task in progress
        self._at: Moment | None = None  # the phase's first moment
        self._begin = 0.0

    def observe(self, moment: Moment, now: float) -> None:
        """Take in where the run is; does something only where a phase begins."""
        at = self._at
        if at is not None and at.phase == moment.phase and at.task == moment.task:
            return
        if at is not None:
            self._end_phase(at, now - self._begin)
            if at.task != moment.task:
                self._end_task()
        self._at, self._begin = moment, now

    def _end_phase(self, at: Moment, seconds: float) -> None:
        share = self.trained(at)
        if self.tasks_seen == 0 and at.phase == "train" and not self._current and share < 1:
            seconds /= 1 - share  # a run that was resumed amid its training
        self._current[at.phase] = seconds

    def _end_task(self) -> None:
        if "train" in self._current:  # else the run was resumed behind it
            self.tasks_seen += 1
            for phase, seconds in self._current.items():
                self._spent[phase] += seconds
        self._current = {}

    def seconds(self, moment: Moment, now: float) -> float | None:
        """Seconds to the end of the run, or None where nothing is known yet."""
        costs = {phase: self._cost(phase, moment, now) for phase in PHASES}
        if not costs["train"]:
            return None
        elapsed, share = now - self._begin, self.trained(moment)
        rest = (1 - share) * costs["train"]
        if moment.phase == "start":
            rest += max(0.0, costs["start"] - elapsed)
        rest += max(0.0, costs["end"] - elapsed) if moment.phase == "end" else costs["end"]
        return rest + (self.num_tasks - moment.task - 1) * sum(costs.values())

    def _cost(self, phase: str, moment: Moment, now: float) -> float:
        """What a phase takes in a task."""
        if self.tasks_seen:
            return self._spent[phase] / self.tasks_seen
        if phase == moment.phase == "train" and self._at is not None and self.trained(moment) > self.trained(self._at):
            return (now - self._begin) / (self.trained(moment) - self.trained(self._at))
        return self._current.get(phase, 0.0)

    def trained(self, moment: Moment) -> float:
        """The share of a task's training that lies before the moment."""
        if moment.phase != "train":
            return float(moment.phase == "end")
        return (moment.epoch + moment.batch / max(1, moment.num_batches)) / self.epochs


def words_for(seconds: float | None, at_least: bool) -> str:
    """A time in words, as 1:02:03."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    clock = f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
    return f"at least {clock} to go" if at_least else f"{clock} to go"
