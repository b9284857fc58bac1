"""One metric of many runs, laid out over what it is drawn against: tasks, epochs, or an override."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from taskshift.faults import Fault
from taskshift.sweeps.intervals import mean_interval
from taskshift.sweeps.records import PLACE, Record, Value, in_order, require_override, unknown_metric

LAST = "last"
"""The last task that any of the runs has reached; `last:5` and `first:5` the mean over five, `mean` over all."""

AT = re.compile(r"\d+|mean|last|(first|last):[1-9]\d*")
"""What says of which task, or tasks, a run's value is."""


@dataclass(frozen=True)
class Series:
    """The values [R, X] of the R runs of one group at X places; `there` tells which of them were logged."""

    group: Value
    places: Sequence[Value]
    values: np.ndarray
    there: np.ndarray

    @property
    def used(self) -> np.ndarray:
        """Which values [R, X] count: those that were logged and are finite."""
        return self.there & np.isfinite(self.values)

    @property
    def num_lost(self) -> int:
        """How many values are NaN or infinite, and so in no mean."""
        return int((self.there & ~self.used).sum())

    def counts(self) -> np.ndarray:
        """How many runs each place's mean is over [X]."""
        return self.used.sum(axis=0)

    def means(self) -> np.ndarray:
        """The mean over the runs at each place [X], NaN where none has a finite value."""
        with np.errstate(invalid="ignore"):
            return np.where(self.used, self.values, 0.0).sum(axis=0) / self.counts()

    def intervals(self) -> tuple[np.ndarray, np.ndarray]:
        """Both ends [X] of the t interval of each mean, over the runs that have a value there."""
        low, high = np.full((2, len(self.places)), np.nan)
        patterns, which = np.unique(self.used, axis=1, return_inverse=True)
        for number, runs in enumerate(patterns.T):
            columns = which.ravel() == number
            low[columns], high[columns] = mean_interval(self.values[np.ix_(runs, columns)])
        return low, high


@dataclass(frozen=True)
class AtTask:
    """A metric's last value at one task, or its mean over several, of every run that has got there."""

    tasks: Sequence[int]
    runs: Sequence[Record]
    values: Sequence[float]
    num_absent: int  # runs that have not logged it there

    @property
    def words(self) -> str:
        if len(self.tasks) == 1:
            return f"at task {self.tasks[0]}"
        return f"in the mean over {len(self.tasks)} tasks, {self.tasks[0]} to {self.tasks[-1]}"


@dataclass(frozen=True)
class LaidOut:
    """All groups, and, where the values are those of one task, which."""

    series: Sequence[Series]
    chosen: AtTask | None


def series_of(records: Sequence[Record], metric: str, x: str, group: str | None, at: str = LAST) -> LaidOut:
    """`metric` over `x`, a Series for each value of the override `group`, in order.

    `x` is task_idx (a task's last value counts), global_epoch, or an override, where the value is that at task `at`.
    Raises Fault for a metric that no run has logged, or an override that no run varies.
    """
    for key in {x, group} - {*PLACE, None}:
        require_override(records, key)
    chosen = None if x in PLACE else at_task(records, metric, at)
    if chosen is None:
        runs = [(record, {int(row[x]): row[metric] for row in rows}) for record, rows in logged(records, metric)]
    else:
        runs = [(record, {record.overrides[x]: value}) for record, value in zip(chosen.runs, chosen.values, strict=True)]
    groups: dict[Value, list[dict[Value, float]]] = {}
    for record, points in runs:
        groups.setdefault(None if group is None else record.overrides[group], []).append(points)
    return LaidOut([_laid_out(value, groups[value]) for value in sorted(groups, key=in_order)], chosen)


def at_task(records: Sequence[Record], metric: str, at: str) -> AtTask:
    """`metric` where `at` says, see `AT`; raises Fault where no run has it there. A mean takes a run that has all its tasks."""
    found = [(record, {int(row["task_idx"]): row[metric] for row in rows}) for record, rows in logged(records, metric)]
    logged_at = sorted({task for _, tasks in found for task in tasks})
    chosen = _chosen_tasks(at, logged_at)
    there = [(record, float(np.mean([tasks[task] for task in chosen]))) for record, tasks in found if tasks.keys() >= {*chosen}]
    if not there:
        raise Fault(f"--at {at}: no run has logged {metric} at task {at}; the furthest that has it is at task {logged_at[-1]}")
    return AtTask(chosen, [record for record, _ in there], [value for _, value in there], len(records) - len(there))


def _chosen_tasks(at: str, logged_at: Sequence[int]) -> list[int]:
    """The tasks that `at` means, of those that a metric was logged at."""
    if at.isdecimal():
        return [int(at)]
    if at == "mean":
        return list(logged_at)
    end, _, words = at.partition(":")
    count = int(words or 1)
    if count > len(logged_at):
        raise Fault(f"--at {at}: the runs have it at {len(logged_at)} tasks; give {end}:{len(logged_at)} at most, or mean")
    return list(logged_at[:count] if end == "first" else logged_at[-count:])


def logged(records: Sequence[Record], metric: str) -> list[tuple[Record, list[dict[str, float]]]]:
    """Each run that has logged `metric`, with the rows that carry it; raises Fault where none has."""
    found = [(record, rows) for record in records if (rows := record.rows(metric))]
    if not found:
        raise unknown_metric(records, metric)
    return found


def _laid_out(group: Value, runs: Sequence[Mapping[Value, float]]) -> Series:
    places = sorted({place for run in runs for place in run}, key=in_order)
    values = np.array([[run.get(place, np.nan) for place in places] for run in runs])
    there = np.array([[place in run for place in places] for run in runs])
    return Series(group, places, values, there)
