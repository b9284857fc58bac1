"""The summary pictures of a run, from its record, its config and its saved grids alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from loss_landscape.viewing.theme import save_figure
from taskshift.pictures.barriers import draw_barriers
from taskshift.pictures.coupling import draw_coupling
from taskshift.pictures.curvature import draw_curvature
from taskshift.pictures.declared import groups_with_panels, picture_of
from taskshift.pictures.learning import draw_learning
from taskshift.pictures.planes import draw_planes
from taskshift.pictures.plasticity import draw_plasticity
from taskshift.pictures.written_run import WrittenRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = Callable[[WrittenRun], "Figure | None"]
"""Draws what the run so far has data for; None where it has none."""

DRAWN: dict[str, Picture] = {
    "learning.png": draw_learning,
    "plasticity.png": draw_plasticity,
    "curvature.png": draw_curvature,
    "ranks_and_units.png": picture_of("rank", "units"),
    "weights.png": picture_of("weights"),
    "planes.png": draw_planes,
    "coupling.png": draw_coupling,
    "barrier_matrix.png": draw_barriers,
}

SHOWN = ("spectrum", "sam", "rank", "units", "weights")
"""Whose declared panels are in one of those; any other's get a picture of their own."""


def draw_summary(folder: Path) -> list[Path]:
    """Draw into `summary/` each picture that the run so far has data for; return those drawn."""
    run = WrittenRun.read(Path(folder))
    summary = run.folder / "summary"
    summary.mkdir(exist_ok=True)
    drawn = []
    for name, draw in (DRAWN | _of_others(run)).items():
        figure = draw(run)
        if figure is not None:
            save_figure(summary / name, figure)
            drawn.append(summary / name)
    return drawn


def _of_others(run: WrittenRun) -> dict[str, Picture]:
    """A picture for each evaluator whose panels are nowhere else, and one for the learner's parts."""
    others = [group for group in groups_with_panels(run) if group not in SHOWN]
    return {f"{group}.png" if f"{group}.png" not in DRAWN else f"{group}_panels.png": picture_of(group) for group in others}
