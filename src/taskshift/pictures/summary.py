"""The summary pictures of a run, from its record, its config and its saved grids alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from loss_landscape.viewing.theme import save_figure
from taskshift.pictures.barriers import draw_barriers
from taskshift.pictures.coupling import draw_coupling
from taskshift.pictures.curvature import draw_curvature
from taskshift.pictures.features import draw_features
from taskshift.pictures.learning import draw_learning
from taskshift.pictures.planes import draw_planes
from taskshift.pictures.plasticity import draw_plasticity
from taskshift.pictures.weights import draw_weights
from taskshift.pictures.written_run import WrittenRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = Callable[[WrittenRun], "Figure | None"]
"""Draws what the run so far has data for; None where it has none."""

DRAWN: Mapping[str, Picture] = {
    "learning.png": draw_learning,
    "plasticity.png": draw_plasticity,
    "curvature.png": draw_curvature,
    "ranks_and_units.png": draw_features,
    "weights.png": draw_weights,
    "planes.png": draw_planes,
    "coupling.png": draw_coupling,
    "barrier_matrix.png": draw_barriers,
}


def draw_summary(folder: Path) -> list[Path]:
    """Draw into `summary/` each picture that the run so far has data for; return those drawn."""
    run = WrittenRun.read(Path(folder))
    summary = run.folder / "summary"
    summary.mkdir(exist_ok=True)
    drawn = []
    for name, draw in DRAWN.items():
        figure = draw(run)
        if figure is not None:
            save_figure(summary / name, figure)
            drawn.append(summary / name)
    return drawn
