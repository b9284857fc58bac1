"""The charts of a run's page: the curves of its summary pictures, with what to read in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from loss_landscape.page.content import Chart, Panel, Series
from taskshift.pictures import draw
from taskshift.pictures.curvature import eigenvalue_panels
from taskshift.pictures.declared import declared_panels, groups_with_panels
from taskshift.pictures.draw import spans_decades
from taskshift.pictures.learning import learning_panels
from taskshift.pictures.plasticity import plasticity_panels
from taskshift.pictures.summary import SHOWN
from taskshift.pictures.written_run import WrittenRun

MOST_POINTS = 2000
"""Longer curves over epochs or steps are left out: the summary's pictures have them."""

ERRORS = "Bands are one standard error, or an eigenvalue's residual, where one is known."


def panels_before(run: WrittenRun) -> tuple[Panel, ...]:
    """What was learnt, and the curvature, over the tasks."""
    learnt = _panel(
        "What was learnt",
        [*_charts(run, _one_net_each(plasticity_panels(run))), *_charts(run, learning_panels(run))],
        read="A net that loses plasticity learns each task worse, or slower, than a new net; the gap to a new net is that alone. "
        "In curves within tasks a task's end stands at its number.",
        cannot_tell="Without the gap: whether the net is worn, or tasks are harder. A training loss is taken before each step.",
    )
    curvature = _panel(
        "Curvature",
        _charts(run, [*eigenvalue_panels(run), *declared_panels(run, ("spectrum", "sam"))]),
        read=f"Sharper minima over the tasks, and how much of the curvature is negative. {ERRORS}",
        cannot_tell="Curvature depends on how the net is written down, and is weakly tied to how well it generalises.",
    )
    return (*learnt, *curvature)


def panels_after(run: WrittenRun) -> tuple[Panel, ...]:
    """Ranks and units, weights, and what other evaluators and the learner's parts declare."""
    units = _panel(
        "Ranks and units",
        _charts(run, declared_panels(run, ("rank", "units"))),
        read="Features that collapse span fewer dimensions; dormant units pass hardly anything on. A layer has its own curve.",
        cannot_tell="Whether a dimension that is gone was of any use to the task. Ranks are of a few hundred examples.",
    )
    weights = _panel(
        "Weights",
        _charts(run, declared_panels(run, ("weights",))),
        read="Weights that grow make each step of a fixed length smaller beside them.",
        cannot_tell="With norm layers a larger weight is the same function.",
    )
    others = [group for group in groups_with_panels(run) if group not in SHOWN]
    further = [panel for group in others for panel in _of_group(run, group)]
    return (*units, *weights, *further)


def _of_group(run: WrittenRun, group: str) -> tuple[Panel, ...]:
    meanings = {
        one.pattern: one.meaning for one in run.quantities if one.panel is not None and one.pattern.startswith(f"{group}/")
    }
    read = "; ".join(f"{pattern}: {meaning}" for pattern, meaning in meanings.items())
    charts = _charts(run, declared_panels(run, (group,)))
    return _panel(group, charts, read=read, cannot_tell="How sure these numbers are, where no band is drawn.")


def _panel(title: str, charts: Iterable[Chart], *, read: str, cannot_tell: str) -> tuple[Panel, ...]:
    """The panel, or none where there is nothing to show."""
    shown = tuple(charts)
    return (Panel(title, shown, read, cannot_tell),) if shown else ()


def _one_net_each(panels: Iterable[draw.Panel]) -> Iterator[draw.Panel]:
    """A panel's curves without a name, which are a new net's, in a panel of their own, by the names of those of their colours."""
    for panel in panels:
        names = {curve.colour: curve.label for curve in panel.curves if curve.label is not None}
        title = panel.title.partition(",")[0]
        yield replace(panel, title=title, curves=[curve for curve in panel.curves if curve.label is not None])
        new = [replace(curve, label=names[curve.colour]) for curve in panel.curves if curve.label is None]
        yield replace(panel, title=f"{title}: a new net", curves=new)


def _charts(run: WrittenRun, panels: Iterable[draw.Panel]) -> Iterator[Chart]:
    """Each panel that has a curve, as a chart over tasks."""
    for panel in panels:
        curves = [curve for curve in panel.curves if len(curve.x)]
        clock = panel.x_name.partition(" ")[0]
        if not curves or (clock != "task" and max(len(curve.x) for curve in curves) > MOST_POINTS):
            continue
        title = f"{panel.title} after each {clock}" if clock == "epoch" else panel.title
        values = np.concatenate([curve.y for curve in curves])
        series = tuple(_series(run, curve, panel.x_name) for curve in curves)
        share = "%" if panel.title.startswith("accuracy") else ""
        yield Chart(title, series, share, logarithmic=spans_decades(values[np.isfinite(values)]))


def _series(run: WrittenRun, curve: draw.Curve, x_name: str) -> Series:
    x = curve.x if x_name == "task" else run.on_the_axis_of_tasks(curve.x, x_name)
    values, lower, upper = curve.y, (), ()
    if curve.error is not None and np.isfinite(curve.error).any():
        lower, upper = (plain(values + sign * curve.error) for sign in (-1, 1))
    return Series(curve.label or "", plain(values), plain(x), lower, upper)


def plain(values: np.ndarray) -> tuple[float, ...]:
    """Values [n] as a series has them."""
    return tuple(np.asarray(values, dtype=float).tolist())
