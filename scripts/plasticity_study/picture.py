"""Each problem's curves over tasks, with bands over seeds, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from loss_landscape.viewing.theme import empty_figure
from plasticity_study import results
from plasticity_study.plan import Problem, Study
from plasticity_study.results import BASE
from taskshift.sweeps.plot import COLOURS
from taskshift.sweeps.series import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BIN = 5
"""Tasks that a point is the mean of: how hard a single task is varies more than learners do."""

SIZE = 5.3, 4.1
"""Inches of a panel."""

BACKPROP = "#222222"


def draw(study: Study, problems: Sequence[Problem]) -> Figure:
    """A panel for each problem that has runs, with the learners that the study's file wants pictured."""
    found = {problem.name: _curves(study, problem) for problem in problems}
    shown = [problem for problem in problems if found[problem.name]]
    figure = empty_figure(SIZE[0] * len(shown), SIZE[1])
    figure.get_layout_engine().set(wspace=0.06)
    colours = _colours(study)
    for place, problem in enumerate(shown, start=1):
        _draw_panel(figure.add_subplot(1, len(shown), place), problem, found[problem.name], colours)
    return figure


def _curves(study: Study, problem: Problem) -> dict[str, Series]:
    entries = study.of(problem, study.pictured)
    records = results.records_of(study, problem, entries)
    if not any(record.overrides["learner"] == BASE for record in records):
        return {}
    return results.curves(problem, records, bin_size=BIN)


def _colours(study: Study) -> dict[str, str]:
    others = [name for name in study.pictured if name != BASE]
    return {BASE: BACKPROP, **dict(zip(others, COLOURS, strict=False))}


def _draw_panel(axes: Axes, problem: Problem, curves: Mapping[str, Series], colours: Mapping[str, str]) -> None:
    scale = 100 if problem.percent else 1
    ends = {}
    for name in sorted(curves, key=lambda name: name == BASE):  # backprop over the others
        one, colour = curves[name], colours[name]
        x, means, (low, high) = np.array(one.places) + 1, one.means() * scale, one.intervals()
        axes.plot(x, means, color=colour, linewidth=2.4 if name == BASE else 1.7)
        axes.fill_between(x, low * scale, high * scale, color=colour, alpha=0.13, linewidth=0)
        ends[name] = float(means[np.isfinite(means)][-1])
    axes.set_title(problem.title, fontsize=12.5, fontweight="bold", loc="left")
    axes.set_xlabel(f"task   (means of {_counted(curves.values())}, bands of 95 %)", fontsize=10.5)
    axes.set_ylabel(f"{problem.axis} [%]" if problem.percent else problem.axis, fontsize=10.5)
    axes.tick_params(labelsize=10)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    _label(axes, ends, colours)


def _counted(curves: Iterable[Series]) -> str:
    """How many seeds a curve is the mean of."""
    counts = sorted({len(one.values) for one in curves})
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _label(axes: Axes, ends: Mapping[str, float], colours: Mapping[str, str]) -> None:
    """Each curve's name beside its end, moved apart where they would touch."""
    low, high = axes.get_ylim()
    apart = 0.066 * (high - low)
    names = sorted(ends, key=ends.__getitem__)
    places = spread([ends[name] for name in names], apart)
    right = axes.get_xlim()[1]
    for name, place in zip(names, places, strict=True):
        weight = "bold" if name == BASE else "normal"
        look = {"color": colours[name], "fontsize": 11, "fontweight": weight, "va": "center"}
        axes.annotate(name.replace("_", " "), (right, place), annotation_clip=False, **look)
    axes.set_ylim(low, high)


def spread(wanted: Sequence[float], apart: float) -> list[float]:
    """Rising places, `apart` from each other at least, as near to the wanted ones, which rise, as can be."""
    groups: list[list[float]] = []
    for value in wanted:
        groups.append([value])
        while len(groups) > 1 and _middle(groups[-1]) - _middle(groups[-2]) < apart * (len(groups[-1]) + len(groups[-2])) / 2:
            last = groups.pop()
            groups[-1] += last
    return [_middle(group) + apart * (rank - (len(group) - 1) / 2) for group in groups for rank in range(len(group))]


def _middle(group: Sequence[float]) -> float:
    return sum(group) / len(group)
