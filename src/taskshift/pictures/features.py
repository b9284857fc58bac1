"""ranks_and_units.png: how many dimensions each layer's features use, and how many of its units are idle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from taskshift.pictures.draw import Panel, figure_of
from taskshift.pictures.written_run import WrittenRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURES = ("approximate", "effective", "l1", "numerical", "stable")
"""Of rank."""

STATES = ("dead", "dormant", "saturated")
"""Of units."""


def draw_features(run: WrittenRun) -> Figure | None:
    """A panel for each measure of rank, then one for each state of units."""
    return figure_of(_panels(run), run.heading)


def _panels(run: WrittenRun) -> Iterator[Panel]:
    for measure in MEASURES:
        yield Panel(f"{measure} rank of the features", run.of_layers("rank", f"{measure}_rank", "mean of the layers"))
    for state in STATES:
        yield Panel(f"share of {state} units", run.of_layers("units", f"{state}_fraction", "all layers"))
