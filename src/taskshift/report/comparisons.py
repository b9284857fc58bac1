"""A sweep's configurations against each other, pair by pair over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from loss_landscape.interpretation.hints import Answer
from loss_landscape.page.content import Card, Table
from taskshift.report.words import number, sentences
from taskshift.sweeps.intervals import LEVEL, p_value
from taskshift.sweeps.paired import Comparison, comparisons_of, notes_on
from taskshift.sweeps.records import Record, Value, shown_value
from taskshift.sweeps.series import AtTask, at_task

JUDGED_BY = (("task_last_epoch_accuracy", 0.02), ("task_last_epoch_loss", 0.0))
"""The metrics that cards compare, the first that the runs have, and the difference that counts for nothing."""

MOST_CARDS = 6

LIMITS = (
    "The last task that both have. p-values are not corrected for how many comparisons are made: of twenty at 5 % one differs "
    "by luck. How well each configuration was tuned is not in it."
)


def comparison_cards(records: Sequence[Record]) -> Iterator[Card]:
    """A card for each value of a swept override against the first, by the metric of the last task; `MOST_CARDS` at most."""
    metric, margin = next(
        ((name, least) for name, least in JUDGED_BY if any(record.rows(name) for record in records)), (None, 0.0)
    )
    if metric is None:
        return
    compared = ((key, *found) for key, values in _compared(records) for found in _differences(records, key, values, metric))
    paired = ((key, one, chosen) for key, one, chosen in compared if len(one.differences))
    yield from (_card(key, one, metric, margin, chosen) for key, one, chosen in islice(paired, MOST_CARDS))


def comparison_tables(records: Sequence[Record], metrics: Sequence[str]) -> Iterator[Table]:
    """A table for each swept override: every metric, each value against the first, at the last task that both have."""
    columns = ("difference", "metric", "pairs", "means", "mean difference", "low", "high", "p", "to know")
    for key, values in _compared(records):
        found = [(metric, *each) for metric in metrics for each in _differences(records, key, values, metric)]
        rows = [_row(one, metric, chosen) for metric, one, chosen in found if len(one.differences)]
        without = f" Left out, as no two runs are a pair: {len(found) - len(rows)}." if len(found) > len(rows) else ""
        note = f"Paired over all else that is swept; {LEVEL:.0%} intervals and p by Student's t.{without} {LIMITS}"
        if rows:
            yield Table(f"Differences between values of {key}", columns, tuple(rows), note, folded=False)


def _compared(records: Sequence[Record]) -> Iterator[tuple[str, list[Value]]]:
    """The overrides with two values or more, and these in the order in which the sweep has them."""
    for key in sorted(records[0].overrides):
        values = list(dict.fromkeys(record.overrides[key] for record in records))
        if key != "seed" and len(values) > 1:
            yield key, values


def _differences(
    records: Sequence[Record], key: str, values: Sequence[Value], metric: str
) -> Iterator[tuple[Comparison, AtTask]]:
    """Each further value against the first, at the last task that both have; of 0 pairs where no run of both is alike."""
    furthest = {value: _furthest([one for one in records if one.overrides[key] == value], metric) for value in values}
    for other in values[1:]:
        if (task := min(furthest[values[0]], furthest[other])) >= 0:
            chosen = at_task(records, metric, str(task))
            yield comparisons_of(chosen, key, [values[0], other])[0], chosen


def _furthest(records: Sequence[Record], metric: str) -> int:
    """The last task at which any of these runs has the metric; −1 where none has it."""
    return max((int(row["task_idx"]) for record in records for row in record.rows(metric)), default=-1)


def _card(key: str, one: Comparison, metric: str, margin: float, chosen: AtTask) -> Card:
    base, other = (f"{key}={shown_value(value)}" for value in (one.base, one.other))
    interval = one.interval()
    told = "no interval" if interval is None else f"{LEVEL:.0%} between {interval[0]:+.3g} and {interval[1]:+.3g}"
    p, answer = p_value(one.differences), _answer(one, margin)
    notes = [f"differences of up to {margin:g} count for nothing"] if answer == "no" else notes_on(one)
    return Card(
        f"Does {other} differ from {base}?",
        answer,
        headline=f"{one.mean:+.3g} in {metric}",
        context=f"{number(one.other_mean)} with {other}, {number(one.base_mean)} with {base}",
        evidence=sentences([told, f"{len(one.differences)} pairs {chosen.words}", *([f"p = {p:.2g}"] if p == p else []), *notes]),
        limits=LIMITS,
        settled_by="more seeds" if answer == "cannot tell" else "",
        worrying=None,
    )


def _answer(one: Comparison, margin: float) -> Answer:
    interval = one.interval()
    if interval is None:
        return "cannot tell"
    low, high = interval
    if max(-low, high) <= margin:
        return "no"
    return "yes" if low > 0 or high < 0 else "cannot tell"


def _row(one: Comparison, metric: str, chosen: AtTask) -> tuple[str | float | None, ...]:
    low, high = one.interval() or (None, None)
    p = p_value(one.differences)
    name = f"{shown_value(one.other)} − {shown_value(one.base)}"
    means = f"{number(one.other_mean)} − {number(one.base_mean)}"
    absent = f": {chosen.num_absent} runs have none" if chosen.num_absent else ""
    notes = [*notes_on(one), f"{chosen.words}{absent}"]
    return name, metric, len(one.differences), means, one.mean, low, high, p if p == p else None, "; ".join(notes)
