"""curvature.png: both ends of the Hessian's spectrum, its trace, its negative share, and SAM's sharpness."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from taskshift.pictures.declared import declared_panels
from taskshift.pictures.draw import Curve, Panel, figure_of, shades
from taskshift.pictures.written_run import WrittenRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDS = (("largest eigenvalues, ± residual", "top"), ("smallest eigenvalues, ± residual", "bottom"))
"""Of the spectrum: a panel's title, the name in the record."""


def draw_curvature(run: WrittenRun) -> Figure | None:
    """Eigenvalues by their number, then what the spectrum and SAM declare."""
    return figure_of([*eigenvalue_panels(run), *declared_panels(run, ("spectrum", "sam"))], run.heading)


def eigenvalue_panels(run: WrittenRun) -> Iterator[Panel]:
    """The eigenvalues by their number, those of either end."""
    for title, end in ENDS:
        numbers = sorted(int(name.rpartition("_")[2]) for name in run.names(rf"spectrum/{end}_eigenvalue_\d+"))
        coloured = zip(numbers, shades(len(numbers)), strict=True)
        yield Panel(title, [_eigenvalue(run, end, number, colour) for number, colour in coloured])


def _eigenvalue(run: WrittenRun, end: str, number: int, colour: object) -> Curve:
    """An eigenvalue over tasks, with its error."""
    width = 2.2 if number == 1 else 1.2
    curve = run.over_tasks(f"spectrum/{end}_eigenvalue_{number}", colour, f"no. {number}", width=width)
    rows = [run.tasks[task] for task in curve.x.astype(int)]
    return replace(curve, error=np.array([eigenvalue_error(row, end, number=number) for row in rows]))


def eigenvalue_error(row: Mapping[str, float], end: str, *, number: int) -> float:
    """The error of an eigenvalue, in its own unit: its residual is relative to the largest |eigenvalue|; NaN: not measured."""
    ends = [abs(row[name]) for name in ("spectrum/top_eigenvalue_1", "spectrum/bottom_eigenvalue_1") if name in row]
    return row.get(f"spectrum/{end}_residual_{number}", math.nan) * max(ends, default=math.nan)
