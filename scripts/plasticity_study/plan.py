"""What the study trains, and the commands that train it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from taskshift.config.words import either
from taskshift.faults import Fault

FILE = Path(__file__).with_name("study.yaml")
PROJECT = "plasticity_study"

STEPS_BY = {
    "sgd": ("learner.optimizer.lr={rate}", "learner.optimizer.momentum=0"),
    "rate": ("learner.optimizer.lr={rate}",),
    "momentum": ("learner.optimizer.momentum=0",),
    "own": (),
}
"""What a learner is told of its optimizer: SGD at the problem's rate; the rate alone; SGD at a rate of its own; nothing."""


@dataclass(frozen=True)
class Problem:
    """A stream and a net, and the number by which learners are judged on it."""

    name: str
    title: str
    axis: str
    metric: str
    better: Literal["lower", "higher"]
    percent: bool  # whether the metric is shown in %
    window: int  # how many of the first, and of the last, tasks
    rate: float
    words: Sequence[str]
    tuning: Sequence[str] = ()  # words of the commands that try values, in place of those of `words` with the same key
    learners: Sequence[str] | None = None  # None: all

    @property
    def late(self) -> str:
        return f"last:{self.window}"

    @property
    def early(self) -> str:
        return f"first:{self.window}"


@dataclass(frozen=True)
class Entry:
    """A line of the table: a learner, and the values that its hyper-parameter is tried at."""

    name: str
    learner: str
    key: str | None = None  # None: nothing to choose
    values: Sequence[float] = ()
    words: Sequence[str] = ()
    steps_by: str = "sgd"
    seeds: int | None = None  # None: as many as the study
    cost: float = 1.5  # of a step, in backprop's; for the estimate alone


@dataclass(frozen=True)
class Study:
    """Every problem and every learner."""

    problems: Mapping[str, Problem]
    entries: Mapping[str, Entry]
    shared: Sequence[str]
    tuning: Sequence[str]  # as a problem's own
    tuning_seeds: Sequence[int]
    num_seeds: int
    pictured: Sequence[str]  # learners of the picture
    output: Path

    def of(self, problem: Problem, names: Sequence[str] | None) -> list[Entry]:
        """The learners of these names, or the problem's own, in the file's order; raises Fault for a name that it has not."""
        wanted = names or problem.learners or self.entries
        _refuse_unknown("learner", wanted, self.entries)
        return [entry for name, entry in self.entries.items() if name in wanted]

    def problems_of(self, names: Sequence[str]) -> list[Problem]:
        """The problems of these names; raises Fault for one that the file has not."""
        _refuse_unknown("problem", names, self.problems)
        return [self.problems[name] for name in names]

    def seeds_of(self, entry: Entry, asked: int | None) -> int:
        """How many paired seeds a learner gets: as many as are `asked` for, or its own number, or the study's."""
        return asked or entry.seeds or self.num_seeds

    def folder(self, problem: Problem, entry: Entry, *, tuning: bool = False) -> Path:
        """Where a command's sweep lies."""
        return self.output / PROJECT / "sweeps" / sweep_name(problem, entry, tuning=tuning)

    def tuning_command(self, problem: Problem, entry: Entry) -> list[str]:
        """Words of train.py: each value at each of the tuning seeds."""
        values = ",".join(f"{value:g}" for value in entry.values)
        return self._command(problem, entry, f"{entry.key}={values}", f"seed={_listed(self.tuning_seeds)}", tuning=True)

    def command(self, problem: Problem, entry: Entry, value: float | None, seeds: int) -> list[str]:
        """Words of train.py: the seeds from 0 on, at one value."""
        chosen = () if value is None else (f"{entry.key}={value:g}",)
        return self._command(problem, entry, *chosen, f"seed=range({seeds})", tuning=False)

    def _command(self, problem: Problem, entry: Entry, *words: str, tuning: bool) -> list[str]:
        steps = (word.format(rate=problem.rate) for word in STEPS_BY[entry.steps_by])
        name = sweep_name(problem, entry, tuning=tuning)
        where = f"output_root={self.output}", f"output_project={PROJECT}", f"sweep_name={name}"
        own = (f"learner={entry.learner}", *entry.words, *steps)
        all_words = *problem.words, *self.shared, *own, *where, *words
        return ["--multirun", *(_replaced(all_words, (*self.tuning, *problem.tuning)) if tuning else all_words)]


def sweep_name(problem: Problem, entry: Entry, *, tuning: bool) -> str:
    return f"{problem.name}-{entry.name}" + ("-tuning" if tuning else "")


def _refuse_unknown(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    if absent := [name for name in names if name not in known]:
        raise Fault(f"the study has no {kind} {either(absent)}; it has {', '.join(known)}")


def _replaced(words: Sequence[str], others: Sequence[str]) -> list[str]:
    """The words without those whose keys `others` have, and `others`."""
    keys = {word.partition("=")[0] for word in others}
    return [word for word in words if word.partition("=")[0] not in keys] + list(others)


def read_study(output: Path, file: Path = FILE) -> Study:
    """The study that a yaml tells of; raises TypeError for a key that none of its blocks has."""
    told: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    problems = {name: Problem(name, **block) for name, block in told["problems"].items()}
    entries = {name: _entry(name, **block) for name, block in told["learners"].items()}
    return Study(problems, entries, told["shared"], told["tuning"], told["tuning_seeds"], told["seeds"], told["pictured"], output)


def _entry(name: str, *, learner: str | None = None, values: Sequence[float | str] = (), **block: Any) -> Entry:
    numbers = [float(value) for value in values]  # YAML reads 1e-4 as text
    return Entry(name, learner or name, values=numbers, **block)


def _listed(seeds: Sequence[int]) -> str:
    return ",".join(map(str, seeds))
