"""The loss one ascent step away, on the grids of the loss itself."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from loss_landscape.grids.evaluate import GridJob, described_directions
from loss_landscape.grids.progress import Pace, Progress
from loss_landscape.grids.span import Span, axes_over
from loss_landscape.results.grid import Grid
from loss_landscape.sharpness.sam import checked_rho, sam_loss
from loss_landscape.surface.plane import Plane
from loss_landscape.surface.strategy import Evaluation, EvaluationStrategy
from loss_landscape.surface.surface import LossSurface


def evaluate_sam_grid(
    surface: LossSurface,
    directions: Sequence[Tensor],
    rho: float = 0.05,
    resolution: int = 41,
    span: Span = (-1.0, 1.0),
    stride: int = 1,
    partial: str | Path | None = None,
    noise_cells: int = 16,
    *,
    compile: bool | Literal["auto"] = "auto",
    chunk: int | None = None,
    progress: Progress | None = None,
    abort_if_estimated_hours_over: float | None = None,
) -> Grid:
    """L(θ′ + ρ g/‖g‖) at the points θ′ of a grid, g the gradient at θ′; ρ is absolute.

    `stride` keeps every so-manieth coordinate of the `resolution` ones, the middle one among them, so that the cells are also
    cells of the loss's own grid. All else is as in `evaluate_grid`.
    """
    checked_rho(rho)
    if stride < 1:
        raise ValueError(f"stride must be ≥ 1, got {stride}")
    directions = described_directions(surface, directions)
    first = (resolution // 2) % stride if resolution % 2 else 0
    axes = tuple(axis[first::stride] for axis in axes_over(span, resolution, len(directions)))
    if len(axes[0]) < 2:
        raise ValueError(f"stride {stride} leaves fewer than 2 of {resolution} cells a side; make it smaller")

    def losses(plane: Plane, coordinates: Tensor, strategy: EvaluationStrategy) -> Tensor:
        return plane.evaluate(coordinates, strategy, rho)

    origin_norm = directions.meta["origin_norm"]
    facts = {"rho_absolute": rho, "rho_relative": rho / origin_norm if origin_norm else None, "stride": stride}
    plane = surface.plane(directions)
    evaluation = Evaluation(compile=compile, chunk=chunk)
    strategy = plane.strategy("ascent", num_cells=len(axes[0]) ** len(axes), evaluation=evaluation)
    centre, pace = functools.partial(sam_loss, surface, rho), Pace(progress, abort_if_estimated_hours_over)
    return GridJob(
        surface, directions, axes, losses, centre, strategy, facts, plane=plane, pace=pace, noise_cells=noise_cells
    ).run(partial)
