"""plasticity.png: what was learnt of each task, how fast, and how much less than by a new net."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from loss_landscape.viewing.theme import BLUE, GREEN, ORANGE, PURPLE, SKY
from taskshift.pictures.draw import Panel, figure_of
from taskshift.pictures.written_run import WrittenRun

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
    return figure_of(_panels(run), run.heading)


def _panels(run: WrittenRun) -> Iterator[Panel]:
    for metric in ("accuracy", "loss"):
        learnt = [run.over_tasks(f"plasticity/{name}_{metric}", colour, label) for name, label, colour in MEASURED]
        control = [run.over_tasks(f"plasticity/control_{name}_{metric}", colour, style="--") for name, _, colour in MEASURED]
        beside = ", dashed: a new net" if any(len(curve.x) for curve in control) else ""
        yield Panel(f"{metric} on each task{beside}", [*learnt, *control])
    for metric in ("accuracy", "loss"):
        gaps = [run.over_tasks(f"plasticity/gap_{name}_{metric}", colour, label) for name, label, colour in MEASURED]
        yield Panel(f"{metric}: this net less a new net", gaps)
