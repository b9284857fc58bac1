"""What the study found: each learner early and late, and against backprop, by the functions of `taskshift compare` and `plot`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

import numpy as np

from plasticity_study.plan import Entry, Problem, Study
from taskshift.faults import Fault
from taskshift.sweeps.intervals import mean_interval
from taskshift.sweeps.paired import Comparison, comparisons_of
from taskshift.sweeps.records import Record, read_sweeps, require_override
from taskshift.sweeps.series import LAST, AtTask, Series, at_task, series_of
from taskshift.sweeps.states import FINISHED, states
from taskshift.sweeps.sweep_folder import SweepFolder

BASE = "backprop"
FEATURES = {"dead": "units/dead_fraction", "effective": "rank/effective_rank", "stable": "rank/stable_rank"}


@dataclass(frozen=True)
class Mean:
    """A mean over seeds, and how far its 95 % t interval reaches to either side; NaN for fewer than three."""

    value: float
    reach: float


@dataclass(frozen=True)
class Line:
    """A learner's line of the table."""

    name: str
    value: float | None
    num_seeds: int
    num_lost: int  # runs without a finite number late
    early: Mean
    late: Mean
    change: Mean  # late − early, within runs
    features: dict[str, float]  # late
    against: Comparison | None  # late, backprop the base; None for backprop


def best_value(study: Study, problem: Problem, entry: Entry) -> float | None:
    """The value with the best late mean over the tuning seeds; None where there is nothing to choose.

    A value is out where one of them has no finite number there. Raises Fault where tuning is not over, or all values are out.
    """
    if entry.key is None:
        return None
    records = over(study.folder(problem, entry, tuning=True))
    if not records:
        raise Fault(f"{entry.name}: its tuning has no run that is over; the same call without --save goes on with it")
    require_override(records, entry.key)
    chosen = at_task(records, problem.metric, problem.late)
    late = {value: _late_of(chosen, entry.key, value) for value in entry.values}
    whole = {value: float(np.mean(of)) for value, of in late.items() if len(of) == len(study.tuning_seeds)}
    if not whole:
        raise Fault(f"{entry.name}: no value of {entry.key} ended with finite numbers at all tuning seeds; give others")
    return (min if problem.better == "lower" else max)(whole, key=whole.__getitem__)


def value_trained(study: Study, problem: Problem, entry: Entry) -> float | None:
    """The value at which a learner's results were trained, by what their sweep tells; None where there is nothing to choose."""
    if entry.key is None:
        return None
    fixed = SweepFolder(study.folder(problem, entry)).read()["fixed"]
    return next(float(word.removeprefix(f"{entry.key}=")) for word in fixed if word.startswith(f"{entry.key}="))


def refuse_another_value(study: Study, problem: Problem, entry: Entry, value: float | None) -> None:
    """Raise Fault where a learner has results already, at another value than this one."""
    folder = study.folder(problem, entry)
    if (folder / "sweep.json").exists() and (found := value_trained(study, problem, entry)) != value:
        raise Fault(
            f"{entry.name}: its results are at {entry.key}={found:g}, but of the values tried {value:g} is best now; "
            f"move {folder} away, and the same call trains them anew"
        )


def records_of(study: Study, problem: Problem, entries: Sequence[Entry]) -> list[Record]:
    """Every run of the results that is over, told apart by learner and seed alone."""
    return [
        replace(record, sweep=problem.name, overrides={"learner": entry.name, "seed": record.seed})
        for entry in entries
        for record in over(study.folder(problem, entry))
    ]


def over(folder: Path) -> list[Record]:
    """The runs of a sweep that have come to their ends, those that diverged among them; none where there is no sweep."""
    if not (folder / "sweep.json").exists():
        return []
    known = states(SweepFolder(folder))
    return [record for record in read_sweeps([folder]) if known[record.key].state in FINISHED]


def lines(study: Study, problem: Problem, entries: Sequence[Entry], records: Sequence[Record]) -> list[Line]:
    """A line for each learner that has runs, the best late one first."""
    early, late = (at_task(records, problem.metric, at) for at in (problem.early, problem.late))
    features = {name: at_task(records, metric, LAST) for name, metric in FEATURES.items()}
    here = [entry.name for entry in entries if _of(late, entry.name)]
    names = [BASE, *(name for name in here if name != BASE)]
    against = dict(zip(names[1:], comparisons_of(late, "learner", names), strict=True))
    found = [
        Line(
            name,
            value_trained(study, problem, study.entries[name]),
            len(_of(late, name)),
            sum(record.overrides["learner"] == name for record in records) - len(_of(late, name)),
            *_ends(_of(early, name), _of(late, name)),
            features={feature: _average(_of(of, name)) for feature, of in features.items()},
            against=against.get(name),
        )
        for name in here
    ]
    return sorted(found, key=lambda line: line.late.value, reverse=problem.better == "higher")


def curves(problem: Problem, records: Sequence[Record], *, bin_size: int) -> dict[str, Series]:
    """Each learner's metric over tasks, means of `bin_size` tasks within a run."""
    return {str(one.group): binned(one, bin_size) for one in series_of(records, problem.metric, "task_idx", "learner").series}


def binned(series: Series, size: int) -> Series:
    """Means over `size` places in a row, or all where there are fewer, at their middle; what is left over goes."""
    size = min(size, len(series.places))
    whole = len(series.places) // size * size
    shape = len(series.values), whole // size, size
    values, there = series.values[:, :whole].reshape(shape), series.there[:, :whole].reshape(shape)
    middles = np.asarray(series.places[:whole], dtype=float).reshape(shape[1:]).mean(axis=1)
    return Series(series.group, middles.tolist(), values.mean(axis=2), there.all(axis=2))


def _ends(early: Mapping[int | None, float], late: Mapping[int | None, float]) -> tuple[Mean, Mean, Mean]:
    """Early, late, and the change within runs."""
    pairs = np.array([(early[seed], late[seed]) for seed in sorted(early.keys() & late.keys())])
    return _mean(pairs[:, 0]), _mean(pairs[:, 1]), _mean(pairs[:, 1] - pairs[:, 0])


def _average(of_seeds: Mapping[int | None, float]) -> float:
    return float(np.mean(list(of_seeds.values())))


def _mean(values: np.ndarray) -> Mean:
    [low], [high] = mean_interval(values[:, None])
    return Mean(float(values.mean()), float(high - low) / 2)


def _of(chosen: AtTask, name: str) -> dict[int | None, float]:
    """Seed → value, of one learner's runs with a finite one."""
    pairs = zip(chosen.runs, chosen.values, strict=True)
    return {run.seed: value for run, value in pairs if run.overrides["learner"] == name and isfinite(value)}


def _late_of(chosen: AtTask, key: str, value: float) -> list[float]:
    pairs = zip(chosen.runs, chosen.values, strict=True)
    return [late for run, late in pairs if float(run.overrides[key]) == value and isfinite(late)]
