"""The cards of a configuration: what its seeds say together of plasticity, curvature and features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from loss_landscape.interpretation.hints import Answer
from loss_landscape.page.content import Card
from taskshift.report.curvature import GROWS, GROWS_LIMITS, LARGEST
from taskshift.report.features import COLLAPSE, DORMANT, LIMITS, RANKS
from taskshift.report.plasticity import CONTROL, GAPS, LEARNT, LOSS_LEARNT, QUESTION, TEST, TEST_LOSS, judged_gaps, said_gap
from taskshift.report.trend import FEWEST_TASKS, Indicator, Tasks, Trend, combined, over_seeds, telling_first
from taskshift.report.words import sentences
from taskshift.sweeps.intervals import FEWEST as FEWEST_RUNS

SEEDS_LIMITS = (
    "A trend over tasks is not plasticity: every seed may see the same harder tasks. Seeds are independent points, unlike the "
    "tasks of one run."
)
SEEDS_GAP_LIMITS = (
    "One new net was trained for each task of a seed. The gap is of the end of a task, not of how fast it was learnt."
)
OPEN: Answer = "cannot tell"


@dataclass(frozen=True)
class Seeds:
    """One number of several runs, each over the `tasks` that all which measured it share; `num_runs` there are in all.

    A run that lacks the number or lost a value of it is in no mean, and the others cannot say "no".
    """

    one: Indicator
    num_runs: int
    lengths: Sequence[int]
    runs: Sequence[Tasks]

    @classmethod
    def of(cls, one: Indicator, runs: Sequence[Tasks], *, first: int = 0) -> Seeds:
        """Those of the runs that measured it, from the task `first` on."""
        measured = [one.measured(tasks) for tasks in runs if one.is_in(tasks)]
        shared = sorted(set.intersection(*(set(tasks) for tasks in measured))) if measured else []
        cut = [{task: tasks[task] for task in shared if task >= first} for tasks in measured]
        return cls(one, len(runs), [len(tasks) for tasks in measured], cut)

    @cached_property
    def whole(self) -> Sequence[Tasks]:
        """The runs that lost nothing."""
        return [tasks for tasks in self.runs if tasks and not self.one.loses_any(tasks)]

    @cached_property
    def trend(self) -> Trend | None:
        """The mean of their trends."""
        return over_seeds([trend for tasks in self.whole if (trend := self.one.trend(tasks)) is not None])

    @cached_property
    def answer(self) -> Answer:
        """Does it grow worse? It does where it breaks down in every run."""
        if len(self.runs) == self.num_runs and all(self.one.breaks_down(tasks) for tasks in self.runs):
            return "yes"
        return self.unless_lost(self.one.judged(self.trend))

    def unless_lost(self, answer: Answer) -> Answer:
        """That answer, but no "no" where a run is in no mean."""
        return "cannot tell" if answer == "no" and len(self.whole) < self.num_runs else answer

    @property
    def counted(self) -> str:
        """How many runs count, and how far they go."""
        lost = (
            "" if len(self.whole) == self.num_runs else "; the others lack it, or lost values that are no numbers or not above 0"
        )
        uneven = (
            f"; of {min(self.lengths)} to {max(self.lengths)} tasks those that all share" if len(set(self.lengths)) > 1 else ""
        )
        return f"{len(self.whole)} of {self.num_runs} seeds{lost}{uneven}"

    def in_words(self) -> str:
        """The trend in a sentence, and what it is of."""
        trend = self.trend
        told = f"no interval, which takes {FEWEST_RUNS} runs of {FEWEST_TASKS} tasks" if trend is None else self.one.told(trend)
        return f"{self.one.words}: {told} ({self.counted})"

    def last(self) -> str:
        """The mean over the runs of the number at the last task that they share, with its standard error."""
        values = np.array([self.one.values(tasks)[-1] for tasks in self.whole])
        error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else math.nan
        mean = float(values.mean()) if len(values) else math.nan
        if self.one in GAPS:
            return f"{self.one.words} {said_gap(self.one, mean, error)}"
        return f"{self.one.words} {self.one.said(mean, error)}"


def seed_cards(runs: Sequence[Tasks]) -> tuple[Card, ...]:
    """A card for each question that the tasks' numbers of these runs answer; none for what none of them measured."""
    ranks, gaps = _measured(RANKS, runs), _measured(GAPS, runs)
    asked = (
        (GROWS, _measured((LARGEST,), runs), GROWS_LIMITS, "more seeds"),
        (COLLAPSE, [*ranks[:1], *_measured((DORMANT,), runs)], LIMITS, CONTROL),
    )
    plasticity = [_of_gaps(gaps[0], runs)] if gaps else _of_trends(runs)
    return *plasticity, *(_card(question, found, runs, limits, settles) for question, found, limits, settles in asked if found)


def _of_trends(runs: Sequence[Tasks]) -> list[Card]:
    """The card of plasticity without a new net: by what was learnt of each task."""
    learnt = _measured((TEST, LEARNT), runs) or _measured((TEST_LOSS, LOSS_LEARNT), runs)
    return [_card(QUESTION, learnt, runs, SEEDS_LIMITS, CONTROL)] if learnt else []


def _of_gaps(gap: Indicator, runs: Sequence[Tasks]) -> Card:
    """By the seeds' mean gaps to a new net, over the tasks after the first, and by the gaps' trends."""
    seeds = Seeds.of(gap, runs, first=1)
    means = np.array([gap.values(tasks).mean() for tasks in seeds.whole])
    answer, told = judged_gaps(means, gap) if len(means) >= FEWEST_RUNS else (OPEN, f"an interval takes {FEWEST_RUNS} seeds")
    found = combined([seeds.unless_lost(answer), seeds.answer])
    return Card(
        QUESTION,
        found,
        headline=seeds.last(),
        context="to a new net, mean over seeds at the last task that they share",
        evidence=sentences([f"mean {gap.words} over the tasks after the first: {told}", seeds.in_words()]),
        limits=SEEDS_GAP_LIMITS,
        settled_by="more seeds" if found == OPEN else "",
    )


def _measured(indicators: Sequence[Indicator], runs: Sequence[Tasks]) -> list[Indicator]:
    return [one for one in indicators if any(one.is_in(tasks) for tasks in runs)]


def _card(question: str, indicators: Sequence[Indicator], runs: Sequence[Tasks], limits: str, settles: str) -> Card:
    found = {one: Seeds.of(one, runs) for one in indicators}
    seeds = [found[one] for one in telling_first(indicators, [found[one].answer for one in indicators])]
    answer = combined([one.answer for one in seeds])
    return Card(
        question,
        answer,
        headline=seeds[0].last(),
        context="; ".join(["mean over seeds at the last task that they share", *(one.last() for one in seeds[1:])]),
        evidence=sentences(one.in_words() for one in seeds),
        limits=limits,
        settled_by=settles if answer == OPEN else "",
    )
