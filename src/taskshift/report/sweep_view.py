"""A sweep as its page shows it: a configuration's seeds as bands, and configurations compared pair by pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from loss_landscape.page.content import Chart, Moment, Page, Panel, RunView, Series
from taskshift.faults import Fault
from taskshift.pictures.draw import spans_decades
from taskshift.quantities import Quantities
from taskshift.report.charts import plain
from taskshift.report.comparisons import comparison_cards, comparison_tables
from taskshift.report.run_view import settings_of
from taskshift.report.seed_cards import seed_cards
from taskshift.run_folder import RunFolder, read_quantities
from taskshift.summary import ended_tasks
from taskshift.sweeps import series
from taskshift.sweeps.intervals import FEWEST, LEVEL
from taskshift.sweeps.records import Record, read_sweeps, runs_in_words, shown_value

ALWAYS = (
    *("task_last_epoch_accuracy", "task_last_epoch_loss", "plasticity/test_accuracy", "plasticity/first_epoch_accuracy"),
    *("plasticity/gap_test_accuracy", "plasticity/gap_test_loss", "spectrum/top_eigenvalue_1", "spectrum/sharpness_to_threshold"),
)
"""Shown of every sweep that has them, before the single quantities that declare a panel."""

TITLES = {
    "task_last_epoch": "What was learnt",
    "plasticity": "Plasticity",
    "spectrum": "Curvature",
    "units": "Units",
    "rank": "Ranks",
}

READ = (
    f"A line is the mean over a configuration's seeds, its band the {LEVEL:.0%} interval of that mean (Student's t); thin lines "
    "are single seeds."
)
CANNOT_TELL = (
    f"Of fewer than {FEWEST} seeds there is no band. Two configurations whose bands overlap may differ all the same: pairs of "
    "one seed are compared in the cards and tables."
)


def sweep_page(folder: Path) -> Page:
    """The page of the sweep in `folder`; raises Fault where it holds none, or none of its runs has logged anything."""
    records = [record for record in read_sweeps([folder]) if RunFolder(record.folder, arch="").has_trained()]
    if not records:
        raise Fault(f"no run of {folder} has logged anything yet; `taskshift status {folder}` says where they are")
    quantities = next((read_quantities(record.folder) for record in records), Quantities())
    metrics = _logged(records, quantities)
    views = [_view(name, group, metrics) for name, group in groups_of(records).items()]
    swept = ", ".join(sorted(records[0].overrides))
    subtitle = f"{runs_in_words(len(records))} of the sweep {records[0].sweep}, over {swept}"
    return Page(records[0].sweep, views, subtitle, tuple(comparison_cards(records)), tuple(comparison_tables(records, metrics)))


def groups_of(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The runs that are alike in all but the seed, by what they are alike in."""
    found: dict[str, list[Record]] = {}
    for record in records:
        words = " ".join(f"{key}={shown_value(value)}" for key, value in record.overrides.items() if key != "seed")
        found.setdefault(words or record.sweep, []).append(record)
    return found


def _logged(records: Sequence[Record], quantities: Quantities) -> list[str]:
    """The metrics to show: those that any run has at its tasks' ends."""
    declared = [one.pattern for one in quantities if one.panel is not None and not one.placeholders]
    there = {name for record in records for row in record.rows() for name in row}
    return [name for name in dict.fromkeys([*ALWAYS, *declared]) if name in there]


def _view(name: str, group: Sequence[Record], metrics: Sequence[str]) -> RunView:
    """A configuration: its curves, and what its first run was told."""
    panels = _panels(group, metrics)
    tasks = sorted({task for panel in panels for chart in panel.charts for one in chart.series for task in one.x})
    about = RunFolder(group[0].folder, arch="").known_run() or {}
    settings = [(key, value) for key, value in settings_of(about.get("config", {})) if key != "seed"]
    swept: list[tuple[str, str]] = [(key, shown_value(value)) for key, value in group[0].overrides.items() if key != "seed"]
    return RunView(
        name,
        f"{runs_in_words(len(group))}: seeds {', '.join(_seeds(group))}",
        cards=seed_cards([ended_tasks(record.rows()) for record in group]),
        moments=tuple(Moment(task) for task in tasks),
        over=tuple(panels),
        settings=tuple(dict([*swept, *settings]).items()),
    )


def _seeds(group: Sequence[Record]) -> list[str]:
    return sorted({"?" if record.seed is None else str(record.seed) for record in group}, key=lambda seed: (len(seed), seed))


def _panels(group: Sequence[Record], metrics: Sequence[str]) -> list[Panel]:
    """A panel for each group of names, in their order."""
    found: dict[str, list[Chart]] = {}
    for metric in metrics:
        family = "task_last_epoch" if metric.startswith("task_last_epoch") else metric.partition("/")[0]
        found.setdefault(TITLES.get(family, family), []).extend(_chart(group, metric))
    return [Panel(title, tuple(charts), READ, CANNOT_TELL) for title, charts in found.items() if charts]


def _chart(group: Sequence[Record], metric: str) -> Iterator[Chart]:
    """The metric's mean over the seeds at each task with its interval, and each seed; nothing where no seed has it."""
    if not any(record.rows(metric) for record in group):
        return
    [one] = series.series_of(group, metric, "task_idx", None).series
    means, (low, high) = one.means(), one.intervals()
    bands = np.isfinite(low).any()
    drawn = Series(
        "mean over seeds",
        plain(means),
        plain(np.array(one.places)),
        plain(low) if bands else (),
        plain(high) if bands else (),
        tuple(plain(values) for values in one.values) if len(one.values) > 1 else (),
    )
    unit = "%" if metric.endswith("accuracy") else ""
    yield Chart(metric, (drawn,), unit, logarithmic=spans_decades(means[np.isfinite(means)]))
