"""Is one setting better than another? Differences between runs that are alike in all else, over seeds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from taskshift.config.words import either
from taskshift.faults import Fault
from taskshift.sweeps.intervals import FEWEST, LEVEL, mean_interval, p_value
from taskshift.sweeps.records import Record, Value, in_order, read_sweeps, require_override, runs_in_words, shown_value, typed
from taskshift.sweeps.series import AtTask, at_task

Interval = tuple[float, float]

OUTSIDE_BRACKETS = re.compile(r",(?![^\[]*\])")
"""The commas between values, not those of a list that is one value."""


@dataclass(frozen=True)
class Comparison:
    """Paired differences `other` − `base` of a metric [N], the means of both over those pairs, and what could not be paired."""

    base: Value
    other: Value
    differences: np.ndarray
    base_mean: float
    other_mean: float
    num_unpaired: int  # runs of either without a twin
    num_lost: int  # pairs whose difference is not finite

    @property
    def mean(self) -> float:
        return float(self.differences.mean()) if len(self.differences) else math.nan

    def interval(self) -> Interval | None:
        """The t interval of the mean difference, exact for normal differences; None for fewer than `FEWEST` pairs."""
        if len(self.differences) < FEWEST:
            return None
        [low], [high] = mean_interval(self.differences[:, None])
        return float(low), float(high)


def compare_in(folder: Path, between: str, metric: str, at: str, console: Console) -> None:
    """Print how the values of `between`, "key=base,other,…", differ in the sweep in `folder`."""
    print_comparisons(*compare(read_sweeps([folder]), between, metric, at), metric, console)


def compare(records: Sequence[Record], between: str, metric: str, at: str) -> tuple[list[Comparison], AtTask]:
    """Each further value of `between`, "key=base,other,…", against the first; matched on all other swept overrides.

    Raises Fault for an override, value or metric that the runs don't have.
    """
    key, values = _read(between, records)
    chosen = at_task(records, metric, at)
    return comparisons_of(chosen, key, values), chosen


def comparisons_of(chosen: AtTask, key: str, values: Sequence[Value]) -> list[Comparison]:
    """Each further one of the override's `values` against the first; matched on all other swept overrides."""
    columns = {value: _by_twin(chosen, key, value) for value in values}
    return [_comparison(columns, values[0], other) for other in values[1:]]


def print_comparisons(comparisons: Sequence[Comparison], chosen: AtTask, metric: str, console: Console) -> None:
    """A line for each comparison, and below what is not in the numbers."""
    console.print(f"{metric} {chosen.words}, paired differences", highlight=False, markup=False, soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("difference", "pairs", "means", "mean difference", f"{LEVEL:.0%} interval (Student's t)", "p (paired t)"):
        table.add_column(name, justify="left" if name == "difference" else "right", no_wrap=True)
    for one in comparisons:
        name = f"{shown_value(one.other)} − {shown_value(one.base)}"
        means = f"{one.other_mean:.4g} − {one.base_mean:.4g}"
        interval, p = _shown_interval(one.interval()), p_value(one.differences)
        table.add_row(name, str(len(one.differences)), means, f"{one.mean:+.4g}", interval, "–" if math.isnan(p) else f"{p:.2g}")
    console.print(table)
    for one in comparisons:
        for note in notes_on(one):
            console.print(f"{shown_value(one.other)} − {shown_value(one.base)}: {note}", highlight=False)
    if chosen.num_absent:
        console.print(f"without {metric} {chosen.words}: {runs_in_words(chosen.num_absent)}", highlight=False)


def _read(between: str, records: Sequence[Record]) -> tuple[str, list[Value]]:
    """The override and its values, in the order given."""
    key, _, words = between.partition("=")
    asked = [word.strip() for word in OUTSIDE_BRACKETS.split(words) if word.strip()]
    if len(dict.fromkeys(asked)) < 2:
        raise Fault(f"--between {between}: expected an override and two or more of its values, such as learner=backprop,l2")
    require_override(records, key)
    known = sorted({record.overrides[key] for record in records}, key=in_order)
    found = {word: [value for value in known if word == shown_value(value) or value in typed([word])] for word in asked}
    if absent := [word for word, values in found.items() if not values]:
        raise Fault(f"--between {between}: no run has {key}={either(absent)}; there are {', '.join(map(shown_value, known))}")
    return key, [values[0] for values in found.values()]


def _by_twin(chosen: AtTask, key: str, value: Value) -> dict[tuple, float]:
    """All other overrides → the metric, of the runs with this value."""
    return {
        (record.sweep, *(other for name, other in record.overrides.items() if name != key)): number
        for record, number in zip(chosen.runs, chosen.values, strict=True)
        if record.overrides[key] == value
    }


def _comparison(columns: Mapping[Value, Mapping[tuple, float]], base: Value, other: Value) -> Comparison:
    ours, theirs = columns[base], columns[other]
    twins = sorted(ours.keys() & theirs.keys(), key=repr)
    pairs = np.array([(ours[twin], theirs[twin]) for twin in twins]).reshape(-1, 2)
    finite = np.isfinite(pairs).all(axis=1)
    base_mean, other_mean = pairs[finite].mean(axis=0) if finite.any() else (math.nan, math.nan)
    differences = pairs[finite, 1] - pairs[finite, 0]
    num_unpaired, num_lost = len(ours.keys() ^ theirs.keys()), int((~finite).sum())
    return Comparison(base, other, differences, float(base_mean), float(other_mean), num_unpaired, num_lost)


def _shown_interval(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval[0]:+.4g} … {interval[1]:+.4g}"


def notes_on(one: Comparison) -> list[str]:
    """What a reader must know of a comparison's numbers."""
    count = len(one.differences)
    few = f"{count} pair{'' if count == 1 else 's'}, too few for an interval, which takes {FEWEST}; run more seeds"
    notes = [few] if count < FEWEST else []
    interval = one.interval()
    if interval is not None and interval[0] <= 0 <= interval[1] and interval[0] < interval[1]:
        reach = (interval[1] - interval[0]) / 2
        notes += [f"too few pairs to tell: the interval holds 0, and of {count} pairs only a mean beyond ±{reach:.2g} would show"]
    alone = "1 run has" if one.num_unpaired == 1 else f"{one.num_unpaired} runs have"
    notes += [f"{alone} no twin that is alike in all else and has come so far"] if one.num_unpaired else []
    return notes + ([f"not finite and left out: {one.num_lost} of the pairs"] if one.num_lost else [])
