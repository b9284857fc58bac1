"""How a number changes over a run's tasks: the straight line through it, with its interval, and what that answers."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from loss_landscape.interpretation.hints import Answer
from taskshift.report.words import number, share
from taskshift.sweeps.intervals import FEWEST as FEWEST_RUNS
from taskshift.sweeps.intervals import LEVEL, mean_interval, t_quantile

Row = Mapping[str, float]
Tasks = Mapping[int, Row]
"""Task → its numbers, the first task first."""

Scale = Literal["share", "factor", "difference"]
"""How a change is told: in percentage points, as the factor between the last task and the first, or as it is."""

FEWEST_TASKS = 4
"""Tasks that a trend takes: through three a line leaves one degree of freedom, and is as good as any."""


@dataclass(frozen=True)
class Trend:
    """The change from the first task to the last along the straight line, and the `LEVEL` interval of that change."""

    change: float
    low: float
    high: float
    num_tasks: int

    @classmethod
    def of(cls, tasks: Sequence[int], values: np.ndarray, errors: np.ndarray) -> Trend | None:
        """That of `values` [n] at `tasks` [n] by least squares; None for fewer than `FEWEST_TASKS` finite values.

        The slope's standard error is √(Σr²/(n − 2) / Σ(x − x̄)²), r the residuals, with Student's t of n − 2 degrees of freedom;
        or, where that is larger, what the `errors` [n] of the values make of it (NaN: unknown): a straight line through few tasks
        may fit them better than they are known.
        """
        found = np.isfinite(values)
        count = int(found.sum())
        if count < FEWEST_TASKS:
            return None
        x, y, own = np.asarray(tasks, dtype=float)[found], values[found], np.nan_to_num(errors[found], posinf=0.0)
        centred = x - x.mean()
        spread = float(centred @ centred)
        slope = float(centred @ y) / spread
        residuals = y - y.mean() - slope * centred
        scatter = math.sqrt(float(residuals @ residuals) / (count - 2) / spread)
        known = math.sqrt(float(centred**2 @ own**2)) / spread
        reach = t_quantile(count - 2) * max(scatter, known)
        length = float(x[-1] - x[0])
        return cls(slope * length, (slope - reach) * length, (slope + reach) * length, count)


def over_seeds(trends: Sequence[Trend]) -> Trend | None:
    """The mean change of several runs, with the interval that their scatter gives it; None for too few runs.

    Unlike the tasks of one run, runs of other seeds are independent points.
    """
    changes = np.array([trend.change for trend in trends]).reshape(-1, 1)
    if len(changes) < FEWEST_RUNS:
        return None
    [low], [high] = mean_interval(changes)
    return Trend(float(changes.mean()), float(low), float(high), min(trend.num_tasks for trend in trends))


@dataclass(frozen=True)
class Indicator:
    """A number whose change over the tasks answers a card's question.

    `words` is what it is called, `name` in the record, with its standard error under `error`. `worse` is the direction that is
    asked for, `margin` the change over all tasks that counts for nothing: of a factor its logarithm, of others as it is.
    """

    name: str
    words: str
    worse: Literal[-1, 1]
    scale: Scale
    margin: float
    error: str = ""

    def is_in(self, tasks: Tasks) -> bool:
        """Whether any task has it."""
        return bool(self.measured(tasks))

    def measured(self, tasks: Tasks) -> Tasks:
        """The tasks that have it: evaluators may run after every few tasks alone."""
        return {task: row for task, row in tasks.items() if self.name in row}

    def values(self, tasks: Tasks) -> np.ndarray:
        """The number at each task that has it [n]."""
        return np.array([row[self.name] for row in self.measured(tasks).values()])

    def errors(self, tasks: Tasks) -> np.ndarray:
        """Its standard errors [n], NaN where they are not known."""
        return np.array([row.get(self.error, math.nan) for row in self.measured(tasks).values()])

    def counted(self, tasks: Tasks) -> np.ndarray:
        """Which of the values [n] a trend can be taken of: those that are finite, and of a factor those above 0."""
        values = self.values(tasks)
        return np.isfinite(values) & ((values > 0) | (self.scale != "factor"))

    def loses_any(self, tasks: Tasks) -> bool:
        """Whether a value is in no trend, so that what is left cannot say that nothing happened."""
        return not self.counted(tasks).all()

    def breaks_down(self, tasks: Tasks) -> bool:
        """Whether it ends worse than any number: a loss or an eigenvalue that is finite no more, a rank of 0."""
        values = self.values(tasks)
        if self.scale != "factor" or not len(values):
            return False
        if self.worse < 0:
            return bool(values[-1] <= 0)
        return bool(np.isfinite(values).any()) and not math.isfinite(values[-1])

    def trend(self, tasks: Tasks) -> Trend | None:
        """Its change over the tasks, in the logarithm where that is told as a factor."""
        values, errors = np.where(self.counted(tasks), self.values(tasks), np.nan), self.errors(tasks)
        if self.scale == "factor":
            values, errors = np.log(values), errors / values
        return Trend.of(list(self.measured(tasks)), values, errors)

    def answer(self, tasks: Tasks) -> Answer:
        """Does it grow worse over the tasks? Where a value was lost, the others cannot say "no"."""
        if self.breaks_down(tasks):
            return "yes"
        answer = self.judged(self.trend(tasks))
        return "cannot tell" if answer == "no" and self.loses_any(tasks) else answer

    def judged(self, trend: Trend | None) -> Answer:
        """Is that trend for the worse? "no" where even the worse end of its interval is within the margin."""
        if trend is None:
            return "cannot tell"
        low, high = sorted((self.worse * trend.low, self.worse * trend.high))
        if high < self.margin:
            return "no"
        return "yes" if low > 0 else "cannot tell"

    def in_words(self, tasks: Tasks) -> str:
        """The trend in a sentence, and what is left out of it."""
        trend, left_out = self.trend(tasks), "".join(f"; {words}" for words in self.left_out(tasks))
        if trend is None:
            return f"{self.words}: no trend, which takes {FEWEST_TASKS} tasks{left_out}"
        return f"{self.words}: {self.told(trend)} (line through {trend.num_tasks} tasks){left_out}"

    def left_out(self, tasks: Tasks) -> list[str]:
        """How many values are in no trend, and why."""
        finite = np.isfinite(self.values(tasks))
        counts = {"not finite": int((~finite).sum()), "not above 0": int((finite & ~self.counted(tasks)).sum())}
        return [f"{words} and left out: {count}" for words, count in counts.items() if count]

    def said(self, value: float, error: float = math.nan) -> str:
        """One of its values, a share in percent, with its standard error where that is known."""
        return (share if self.scale == "share" else number)(value, error)

    def told(self, trend: Trend) -> str:
        """A trend in words."""
        change, low, high = map(self._told, (trend.change, trend.low, trend.high))
        return f"{change} from the first task to the last, {LEVEL:.0%} between {low} and {high}"

    def _told(self, change: float) -> str:
        if self.scale == "share":
            return f"{100 * change:+.2g} points"
        if self.scale == "difference":
            return f"{change:+.3g}"
        factor = math.exp(min(change, 700.0))
        return f"×{factor:.2f}" if 0.01 <= factor < 1000 else f"×{factor:.1e}"


def telling_first(indicators: Sequence[Indicator], answers: Sequence[Answer]) -> list[Indicator]:
    """Those that grow worse before the others: a card shows the first."""
    return [
        one for wanted in (True, False) for one, answer in zip(indicators, answers, strict=True) if (answer == "yes") is wanted
    ]


def combined(answers: Collection[Answer]) -> Answer:
    """The answer of several indicators: any that grows worse says yes, and only all together say no."""
    if "yes" in answers:
        return "yes"
    return "no" if answers and set(answers) == {"no"} else "cannot tell"
