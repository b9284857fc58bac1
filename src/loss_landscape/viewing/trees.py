"""The picture of a merge tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loss_landscape.topology import MergeTree
from loss_landscape.viewing.theme import BLUE, INK, VERMILION, empty_figure, set_notes, set_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def merge_tree_figure(tree: MergeTree, *, title: str) -> Figure:
    """Each component as an upright line from its minimum to the saddle where it joins its elder, the loss on the vertical axis.

    What never joins rises, dotted, to the upper edge.
    """
    figure = empty_figure(6.2, 4.2)
    set_title(figure, title)
    if not len(tree.births):
        figure.text(0.5, 0.5, "no minima: no cell is finite", ha="center", color=VERMILION)
        return figure
    axes = figure.add_subplot()
    top, places = _upper_edge(tree), tree.places
    joins = np.isfinite(tree.deaths)
    axes.vlines(places[joins], tree.births[joins], tree.deaths[joins], color=BLUE, linewidth=1.4)
    axes.hlines(tree.deaths[joins], places[joins], places[tree.elders[joins]], color=BLUE, linewidth=1.4)
    axes.vlines(places[~joins], tree.births[~joins], top, color=BLUE, linewidth=1.4, linestyle=":")
    axes.plot(places, tree.births, "o", color=INK, markersize=4)
    axes.set(ylabel="loss", ylim=(None, top))
    axes.set_xticks([])
    axes.grid(axis="y", alpha=0.25)
    set_notes(axes, [f"{tree.num_minima()} minima", f"total persistence {tree.total_persistence:.3g}"], width=84)
    return figure


def _upper_edge(tree: MergeTree) -> float:
    """A little above the highest saddle."""
    heights = np.concatenate([tree.births, tree.saddle_heights])
    low, high = float(heights.min()), float(heights.max())
    return high + (0.15 * (high - low) or 0.1 * abs(high) or 1.0)
