"""How much the loss can rise near the origin."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from loss_landscape.pace import Pace, Progress
from loss_landscape.paths import GridPath
from loss_landscape.plane import GridJob, Span, axes_over, described_directions
from loss_landscape.results import Estimate, Grid
from loss_landscape.surface import LossSurface


def sam_sharpness(surface: LossSurface, rho: float = 0.05) -> float:
    """L(θ + ρ g/‖g‖) − L(θ), g the gradient at θ (Foret et al. 2021); ρ is absolute. 0 where the gradient is 0."""
    return _sam_loss(surface, rho) - surface.loss()


def first_order_sharpness(surface: LossSurface, rho: float = 0.05) -> float:
    """ρ‖g‖, what `sam_sharpness` is for a small ρ."""
    return _checked_rho(rho) * float(surface.gradient().double().norm())


def asam_sharpness(surface: LossSurface, rho: float = 0.5, eta: float = 0.01) -> float:
    """L(θ + ρ T²g/‖Tg‖) − L(θ), T = |θ| + η (Kwon et al. 2021): a step measured against each parameter's own size.

    It does not change when a ReLU net's layers are rescaled against each other (with η = 0). Every parameter is scaled, where the
    authors' code scales only those called weight.
    """
    gradient = surface.gradient().double()
    scale = surface.origin.double().abs() + eta
    length = (scale * gradient).norm()
    if bool(length == 0):
        return 0.0
    step = _checked_rho(rho) * scale.square() * gradient / length
    return float(surface.at(step[None])) - surface.loss()


def expected_sharpness(
    surface: LossSurface, sigma: float, num_samples: int = 16, generator: torch.Generator | None = None
) -> Estimate:
    """The mean of L(θ + ε) − L(θ) over Gaussian noise ε of standard deviation `sigma` in each parameter.

    Noise comes in pairs ±ε, which cancels the slope; a pair is one sample.
    """
    if sigma <= 0:
        raise ValueError(f"sigma must be > 0, got {sigma}")
    if num_samples < 2:
        raise ValueError(f"num_samples must be ≥ 2 to know its own error, got {num_samples}")
    generator = generator or torch.Generator().manual_seed(0)
    rises = []
    for _ in range(num_samples):
        noise = torch.randn(surface.size, generator=generator, dtype=torch.float64, device=generator.device)
        noise = sigma * noise.to(surface.origin)
        rises.append(surface.at(torch.stack([noise, -noise])).mean() - surface.loss())
    return Estimate.from_samples(torch.stack(rises).cpu())


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
    _checked_rho(rho)
    if stride < 1:
        raise ValueError(f"stride must be ≥ 1, got {stride}")
    directions = described_directions(surface, directions)
    first = (resolution // 2) % stride if resolution % 2 else 0
    axes = tuple(axis[first::stride] for axis in axes_over(span, resolution, len(directions)))
    if len(axes[0]) < 2:
        raise ValueError(f"stride {stride} leaves fewer than 2 of {resolution} cells a side; make it smaller")

    def losses(on: LossSurface, coordinates: Tensor, path: GridPath) -> Tensor:
        return on.sam_along(directions, coordinates, rho, path)

    origin_norm = directions.meta["origin_norm"]
    facts = {"rho_absolute": rho, "rho_relative": rho / origin_norm if origin_norm else None, "stride": stride}
    how = {"num_cells": len(axes[0]) ** len(axes), "compile": compile, "chunk": chunk}
    path = surface.grid_path(len(directions), "ascent", **how)
    centre, pace = functools.partial(_sam_loss, surface, rho), Pace(progress, abort_if_estimated_hours_over)
    return GridJob(surface, directions, axes, losses, centre, path, facts, pace=pace, noise_cells=noise_cells).run(partial)


def _sam_loss(surface: LossSurface, rho: float) -> float:
    origin = torch.zeros(1, 1, dtype=torch.float64)
    return float(surface.sam_along([torch.zeros_like(surface.origin)], origin, _checked_rho(rho), GridPath("loop", 1)))


def _checked_rho(rho: float) -> float:
    if not 0 <= rho < float("inf"):
        raise ValueError(f"rho must be finite and ≥ 0, got {rho}")
    return rho
