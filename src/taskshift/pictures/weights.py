"""weights.png: how large the weights are, and how far they have gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskshift.pictures.draw import Panel, figure_of
from taskshift.pictures.written_run import WrittenRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {"mean_abs": "mean |weight|", "norm": "‖θ‖", "distance_from_init": "distance from the initial parameters"}


def draw_weights(run: WrittenRun) -> Figure | None:
    """A panel a measure, with every layer."""
    return figure_of([Panel(title, run.of_layers("weights", name, "all layers")) for name, title in TITLES.items()], run.heading)
