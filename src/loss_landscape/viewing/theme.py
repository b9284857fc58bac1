"""How every picture looks: its colours, its empty page, its file."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loss_landscape.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

PathLike = str | Path

INK, VERMILION, BLUE, ORANGE, SKY, GREEN, PURPLE = "#222222", "#D55E00", "#0072B2", "#E69F00", "#56B4E9", "#009E73", "#CC79A7"
"""Colours that colour-blind readers can tell apart (Okabe & Ito 2008); vermilion marks what is not finite."""

FONTS = {"pdf.fonttype": 42, "ps.fonttype": 42}
"""TrueType in PDF and PostScript: venues refuse matplotlib's default, Type 3, which no editor can change."""


def save_figure(path: PathLike, figure: Figure) -> Figure:
    """Write a figure, whole or not at all; the file's ending chooses its format."""
    from matplotlib import rc_context

    if not Path(path).suffix:
        raise ValueError(f"{path} has no ending, which chooses the format; give {path}.png, or .pdf, .svg")
    with rc_context(FONTS):
        write_whole(Path(path), lambda beside: figure.savefig(beside, dpi=120))
    return figure


def empty_figure(width: float, height: float, *, layout: str | None = "constrained") -> Figure:
    """A page of `width` by `height` inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)  # no pyplot: it would keep every figure of a long run


def colormap() -> Colormap:
    """Viridis, with colours of their own for what is not finite and what lies outside the scale."""
    from matplotlib import colormaps

    return colormaps["viridis"].with_extremes(bad=VERMILION, under="#160020", over="#FFFFC8")


def set_title(figure: Figure, title: str, **place: Any) -> None:
    """The title over the whole figure."""
    figure.suptitle(title, fontsize=11, fontweight="bold", **place)


def set_notes(axes: Axes, notes: Sequence[str], *, width: int) -> None:
    """The notes above axes, in lines of up to `width` characters."""
    axes.set_title(in_lines(notes, width), fontsize=8.5)


def in_lines(notes: Sequence[str], width: int) -> str:
    """Notes one after the other, in lines of up to `width` characters; a note is broken only where it is longer than a line."""
    lines: list[str] = []
    for note in notes:
        if lines and len(lines[-1]) + len(note) + 3 <= width:
            lines[-1] += f" · {note}"
        else:
            lines += textwrap.wrap(note, width)
    return "\n".join(lines)


def set_title_above(figure: Figure, title: str, *below: Axes) -> None:
    """The title above the notes above axes of fixed places."""
    lines = max(len(axes.get_title().splitlines()) for axes in below)
    points = 10 + 12.5 * lines
    y = max(axes.get_position().y1 for axes in below) + points / 72 / figure.get_figheight()
    set_title(figure, title, y=y, verticalalignment="bottom")


def mark_not_finite(axes: Axes, places: Any) -> None:
    """Crosses at `places` [n] on the lower edge of a line's picture."""
    if len(places):
        marks = {"color": VERMILION, "transform": axes.get_xaxis_transform(), "clip_on": False, "label": "not finite"}
        axes.plot(places, [0.0] * len(places), "x", **marks)
