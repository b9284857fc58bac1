"""The card of features: do they lose dimensions, or units?"""

from __future__ import annotations

import math

from loss_landscape.page.content import Card
from taskshift.report.trend import Indicator, Tasks, combined, telling_first
from taskshift.report.words import sentences

A_TENTH = math.log(1.1)

RANKS = tuple(
    Indicator(f"rank/{name}", name.replace("_", " "), -1, "factor", A_TENTH)
    for name in ("approximate_rank", "effective_rank", "stable_rank", "l1_rank", "numerical_rank")
)
DORMANT = Indicator("units/dormant_fraction", "dormant units", 1, "share", 0.1)

COLLAPSE = "Are features collapsing?"
LIMITS = (
    "A low rank may be all that the task needs, and a dormant unit may wake: whether the loss of either costs anything is seen "
    "beside a new net on the same task. Ranks are of the first evaluation examples, means over the layers."
)


def features_card(tasks: Tasks) -> Card:
    """Judged by the trends of a rank and of the share of dormant units: one of them that grows worse is enough."""
    measured = [one for one in RANKS if one.is_in(tasks)][:1] + [one for one in (DORMANT,) if one.is_in(tasks)]
    answers = [one.answer(tasks) for one in measured]
    measured, answer = telling_first(measured, answers), combined(answers)
    return Card(
        COLLAPSE,
        answer,
        headline=f"{measured[0].words} {_ends(measured[0], tasks)[1]}" if measured else "not measured",
        context="; ".join(_beside(measured, tasks)),
        evidence=sentences(one.in_words(tasks) for one in measured) or "No task has ranks or dormant units.",
        limits=LIMITS,
        settled_by=_what_settles(measured, answer == "cannot tell"),
        series=tuple(measured[0].values(tasks).tolist()) if measured else (),
    )


def _beside(measured: list[Indicator], tasks: Tasks) -> list[str]:
    """The first task's number, and what else was measured at both ends."""
    first = [f"first task {_ends(one, tasks)[0]}" for one in measured[:1]]
    return first + [f"{one.words} {last} (first task {begun})" for one in measured[1:] for begun, last in [_ends(one, tasks)]]


def _ends(one: Indicator, tasks: Tasks) -> tuple[str, str]:
    """The first value and the last."""
    first, last = map(one.said, one.values(tasks)[[0, -1]])
    return first, last


def _what_settles(measured: list[Indicator], is_open: bool) -> str:
    if not measured:
        return "lla.enable_rank=true lla.enable_units=true"
    return "more tasks, and lla.plasticity.control=true" if is_open else ""
