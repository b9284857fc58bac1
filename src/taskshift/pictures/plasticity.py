"""plasticity.png: what was learnt of each task, how fast, and how much less than by a new net."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from loss_landscape.viewing.theme import BLUE, GREEN, ORANGE, PURPLE, SKY
from taskshift.pictures.draw import Curve, Panel, figure_of
from taskshift.pictures.written_run import WrittenRun
from taskshift.quantities import ERROR

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURED = (
    ("test", "test", BLUE),
    ("train", "train", SKY),
    ("first_epoch_test", "test after one epoch", ORANGE),
    ("first_epoch", "train in epoch one", PURPLE),
    ("area_under", "train, mean over epochs", GREEN),
)
"""What `plasticity` measures: the name before the metric's, what the legend calls it, its colour."""


def draw_plasticity(run: WrittenRun) -> Figure | None:
    """What the net learnt beside a new net, then the difference of the two."""
    return figure_of(plasticity_panels(run), run.heading)


def plasticity_panels(run: WrittenRun) -> Iterator[Panel]:
    """What was learnt, by this net and by a new one, and the gap between the two."""
    for metric in ("accuracy", "loss"):
        learnt = [_curve(run, f"{name}_{metric}", colour, label) for name, label, colour in MEASURED]
        control = [_curve(run, f"control_{name}_{metric}", colour, style="--") for name, _, colour in MEASURED]
        beside = ", dashed: a new net" if any(len(curve.x) for curve in control) else ""
        yield Panel(f"{metric} on each task{beside}", [*learnt, *control])
    for metric in ("accuracy", "loss"):
        gaps = [_curve(run, f"gap_{name}_{metric}", colour, label) for name, label, colour in MEASURED]
        yield Panel(f"{metric}: this net less a new net", gaps)


def _curve(run: WrittenRun, name: str, colour: str, label: str | None = None, **look: str) -> Curve:
    """A number over the tasks, with its standard error where the record has it."""
    error = f"plasticity/{name}{ERROR}"
    known = error if any(error in row for row in run.tasks.values()) else None
    return run.over_tasks(f"plasticity/{name}", colour, label, error=known, **look)
