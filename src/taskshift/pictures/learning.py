"""learning.png: loss and accuracy after each epoch, with the tasks' borders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from loss_landscape.viewing.theme import BLUE, GREEN, ORANGE
from taskshift.pictures.draw import Panel, figure_of
from taskshift.pictures.written_run import WrittenRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_learning(run: WrittenRun) -> Figure | None:
    """A panel a metric, one below the other."""
    return figure_of(learning_panels(run), run.heading, columns=1, size=(9.0, 2.9))


def learning_panels(run: WrittenRun) -> Iterator[Panel]:
    """Loss and accuracy of each split that was looked at; nothing before the first epoch."""
    if not run.epochs:
        return
    for metric in ("loss", "accuracy"):
        curves = [
            run.over_epochs(f"epoch_{metric}", BLUE, "train, as the examples came"),
            run.over_epochs(f"val_{metric}", GREEN, "validation"),
            run.over_epochs(f"test_{metric}", ORANGE, "test"),
        ]
        yield Panel(metric, curves, **run.epoch_axis)
