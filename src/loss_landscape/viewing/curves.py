"""The picture of a curve between two nets: where it runs, seen from the straight line between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from loss_landscape.paths.curves import Curve
from loss_landscape.viewing.theme import BLUE, INK, ORANGE, VERMILION, empty_figure, set_notes, set_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_POINTS = 101


def curve_figure(curve: Curve, *, title: str) -> Figure:
    """How far along the straight line, and how far from it, each point of a curve is; both in lengths of that line."""
    figure = empty_figure(6.2, 4.2)
    set_title(figure, title)
    along, apart = seen_from_the_chord(curve, torch.linspace(0.0, 1.0, NUM_POINTS, dtype=torch.float64))
    if not np.isfinite(apart).all():
        figure.text(0.5, 0.5, "the curve is not finite", ha="center", color=VERMILION)
        return figure
    axes = figure.add_subplot()
    axes.plot([along[0], along[-1]], [0.0, 0.0], "-", color=ORANGE, linewidth=1.4, label="straight line")
    axes.plot(along, apart, "-", color=BLUE, linewidth=1.6, label="curve")
    axes.plot(along[[0, -1]], apart[[0, -1]], "o", markersize=9, markerfacecolor="none", color=INK, label="the two nets")
    axes.set(xlabel="along the straight line, in its lengths", ylabel="distance from it, in its lengths")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    set_notes(axes, [f"{len(curve.controls)} control points, {curve.controls.shape[1]} parameters"], width=84)
    return figure


def seen_from_the_chord(curve: Curve, t: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The points at `t` [T] along the straight line from end to end and their distances from it, [T] each, in its lengths.

    In parameters' own units where both ends are one net.
    """
    steps = (curve.controls - curve.start).double().cpu()  # [K, P]
    gram, shares = steps @ steps.T, curve.weights(t)
    length = float(gram[-1, -1].sqrt())
    squares = torch.einsum("tk,kl,tl->t", shares, gram, shares)
    along = shares @ gram[-1] / length if length else torch.zeros_like(t)
    apart = (squares - along.square()).clamp_min(0).sqrt()
    unit = length or 1.0
    return (along / unit).numpy(), (apart / unit).numpy()
