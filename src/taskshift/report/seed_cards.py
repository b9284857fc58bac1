"""The cards of a configuration: what its seeds say together of plasticity, curvature and features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loss_landscape.page.content import Card
from taskshift.report.curvature import GROWS, GROWS_LIMITS, LARGEST
from taskshift.report.features import COLLAPSE, DORMANT, LIMITS, RANKS
from taskshift.report.plasticity import CONTROL, LEARNT, LOSS_LEARNT, QUESTION, TEST, TEST_LOSS
from taskshift.report.trend import FEWEST, FEWEST_RUNS, Indicator, Tasks, Trend, combined, over_seeds, telling_first
from taskshift.report.words import number, sentences, share
from taskshift.sweeps.records import runs_in_words

SEEDS_LIMITS = (
    "A trend over tasks is not plasticity: every seed may see the same harder tasks. Seeds are independent points, unlike the "
    "tasks of one run."
)


def seed_cards(runs: Sequence[Tasks]) -> tuple[Card, ...]:
    """A card for each question that the tasks' numbers of these runs answer; none for what none of them measured."""
    accuracy, loss, ranks = _measured((TEST, LEARNT), runs), _measured((TEST_LOSS, LOSS_LEARNT), runs), _measured(RANKS, runs)
    asked = (
        (QUESTION, accuracy or loss, SEEDS_LIMITS, CONTROL),
        (GROWS, _measured((LARGEST,), runs), GROWS_LIMITS, "more seeds"),
        (COLLAPSE, [*ranks[:1], *_measured((DORMANT,), runs)], LIMITS, CONTROL),
    )
    return tuple(_card(question, found, runs, limits, settles) for question, found, limits, settles in asked if found)


def _measured(indicators: Sequence[Indicator], runs: Sequence[Tasks]) -> list[Indicator]:
    return [one for one in indicators if any(one.is_in(tasks) for tasks in runs)]


def _card(question: str, indicators: Sequence[Indicator], runs: Sequence[Tasks], limits: str, settles: str) -> Card:
    indicators = telling_first(indicators, [one.judged(_trend(one, runs)) for one in indicators])
    trends = [_trend(one, runs) for one in indicators]
    evidence = [
        f"{one.words}: no interval, which takes {FEWEST_RUNS} runs of {FEWEST} tasks"
        if trend is None
        else f"{one.words}: {one.told(trend)}"
        for one, trend in zip(indicators, trends, strict=True)
    ]
    last = [_last(one, runs) for one in indicators]
    return Card(
        question,
        combined([one.judged(trend) for one, trend in zip(indicators, trends, strict=True)]),
        headline=last[0],
        context="; ".join([f"mean over {runs_in_words(len(runs))}, each at its last task", *last[1:]]),
        evidence=sentences(evidence),
        limits=limits,
        settled_by=settles,
    )


def _trend(one: Indicator, runs: Sequence[Tasks]) -> Trend | None:
    return over_seeds([trend for tasks in runs if (trend := one.trend(tasks)) is not None])


def _last(one: Indicator, runs: Sequence[Tasks]) -> str:
    """The mean over the runs of the number at their last task, with its standard error."""
    values = np.array([one.values(tasks)[-1] for tasks in runs if one.is_in(tasks)])
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    say = share if one.scale == "share" else number
    return f"{one.words} {say(float(values.mean()), error)}"
