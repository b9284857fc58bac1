"""Are two nets joined by a path of low loss? The loss along curves between them, and its barrier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loss_landscape.checkpointing import Checkpointing, Progress
from loss_landscape.directions.points import PointLike, point_in
from loss_landscape.grids.cells import GridCells
from loss_landscape.grids.job import GridJob
from loss_landscape.paths.curve_fitting import Bending, bent
from loss_landscape.paths.curves import Curve, bezier, evenly_spaced, line, polychain
from loss_landscape.progress import ProgressEstimate
from loss_landscape.randomness import GeneratorLike, generator_from
from loss_landscape.results.directions import Directions
from loss_landscape.surface.surface import LossSurface


@dataclass(frozen=True, eq=False)
class PathLosses:
    """The losses along a curve, from one net at t = 0 to the other at t = 1."""

    t: np.ndarray  # [T], float64
    losses: np.ndarray  # [T], float64
    lengths: np.ndarray  # [T], float64: how long the curve is up to each t
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def barrier(self) -> float:
        """max_t L(t) − ((1 − t)·L(0) + t·L(1)): how far the loss rises above the straight line between the ends' losses.

        Entezari et al. 2022, at the points evaluated, the ends among them: never below 0. Where the ends' losses are equal
        it is the instability of Frankle et al. 2020.
        """
        first, last = self.losses[0], self.losses[-1]
        with np.errstate(invalid="ignore"):  # inf − inf is the NaN that it should be
            rise = last - first
            chord = np.where(self.t < 0.5, first + self.t * rise, last - (1 - self.t) * rise)  # the ends' losses to the last bit
            return float((self.losses - chord).max())

    @property
    def highest(self) -> float:
        """The highest loss, max_t L(t)."""
        return float(self.losses.max())

    @property
    def t_highest(self) -> float:
        """Where the highest loss is."""
        return float(self.t[self.losses.argmax()])

    @property
    def mean(self) -> float:
        """The mean loss over the curve's length (Garipov et al. 2018, eq. 1), by the trapezoidal rule."""
        if self.lengths[-1] == 0:
            return float(self.losses.mean())
        return float(np.trapezoid(self.losses, self.lengths) / self.lengths[-1])


def path_losses(
    surface: LossSurface,
    curve: Curve,
    num_points: int = 61,
    *,
    partial: str | Path | None = None,
    progress: Progress | None = None,
) -> PathLosses:
    """The losses at `num_points` even steps of t along a curve, ends included, as a one-dimensional grid has them.

    The curve may be any in the surface's layout, and need not pass through its origin: other surfaces of the same layout give
    test losses along it, or an error rate (with `+ 0 * outputs.sum()`, so that it depends on the parameters). The losses at the
    ends are the surface's own there, bit for bit. Buffers and frozen parameters are the surface's: for nets with batch norm give
    it `batch_norm="recompute"`. `partial` and `progress` are as in `evaluate_grid`.
    """
    if num_points < 2:
        raise ValueError(f"num_points must be ≥ 2, got {num_points}")
    here, times = surface.moved_to(curve.start), np.linspace(0.0, 1.0, num_points)
    shares = curve.weights(torch.from_numpy(times))  # [T, K]
    steps = list(curve.controls.to(here.origin) - here.origin)
    moving = [number for number, step in enumerate(steps) if bool((step != 0).any())]
    if not moving:  # a net and itself
        return PathLosses(times, np.full(num_points, here.loss()), np.zeros(num_points), _told(curve, here))
    directions = Directions(tuple(steps[number] for number in moving), _told(curve, here))

    plane = here.plane(directions)
    cells = GridCells(plane, (times,), on_plane=lambda coordinates: curve.weights(coordinates[:, 0])[:, moving])
    job = GridJob(
        cells,
        directions,
        here.loss,
        plane.strategy(num_cells=num_points),
        noise_cells=0,
        checkpointing=Checkpointing(partial, progress=progress),
    )
    grid = job.run()
    losses = grid.losses
    losses[-1] = surface.moved_to(curve.end).loss()
    return PathLosses(times, losses, _lengths(shares[:, moving], directions), grid.meta)


def barrier(surface: LossSurface, start: PointLike, end: PointLike, num_points: int = 25) -> PathLosses:
    """The losses on the straight line between two nets; its `barrier` is theirs.

    A point is a vector [P] in the surface's layout, a net, its state dict, or a file of that.
    """
    return path_losses(surface, line(point_in(surface, start), point_in(surface, end)), num_points)


def fit_bezier(
    surface: LossSurface,
    start: PointLike,
    end: PointLike,
    steps: int = 100,
    *,
    lr: float = 0.01,
    num_bends: int = 1,
    generator: GeneratorLike = None,
    max_seconds: float | None = None,
    train: LossSurface | None = None,
    partial: str | Path | None = None,
    progress: Progress | None = None,
) -> Curve:
    """A Bézier curve of low loss between two nets, quadratic unless `num_bends` is more than 1 (Garipov et al. 2018, §3.2).

    Each of `steps` draws one t from the generator (None: the same ones every time), evenly from 0 to 1, takes the next batch of
    `train` (`surface` unless given; of the same layout), and moves the bends, which begin on the straight line, by Adam: lr is
    held for the first half, then falls to a hundredth. A surface that recomputes batch norm's statistics is trained on each
    batch's own, any other as it is evaluated.

    After `max_seconds`, those of interrupted calls included, the straight line is returned and `meta["fell_back"]` says why; so
    where a bend is not finite. `partial` is a file that keeps what is done: interrupted and called again, the fit goes on with
    the same bits. `meta` also has the loss of every step's batch.
    """
    straight = bezier(_controls(surface, start, end, num_bends))
    return bent(
        _bending(straight, train or surface, steps, lr, generator, partial),
        max_seconds,
        ProgressEstimate(Checkpointing(progress=progress)),
    )


def fit_polychain(
    surface: LossSurface,
    start: PointLike,
    end: PointLike,
    steps: int = 100,
    *,
    lr: float = 0.01,
    num_bends: int = 1,
    generator: GeneratorLike = None,
    max_seconds: float | None = None,
    train: LossSurface | None = None,
    partial: str | Path | None = None,
    progress: Progress | None = None,
) -> Curve:
    """A chain of num_bends + 1 straight lines of low loss between two nets, found as `fit_bezier` finds its curve."""
    straight = polychain(_controls(surface, start, end, num_bends))
    return bent(
        _bending(straight, train or surface, steps, lr, generator, partial),
        max_seconds,
        ProgressEstimate(Checkpointing(progress=progress)),
    )


def _controls(surface: LossSurface, start: PointLike, end: PointLike, num_bends: int) -> Tensor:
    """The ends [P] with evenly spaced points of the straight line between them, [num_bends + 2, P]."""
    if num_bends < 1:
        raise ValueError(f"num_bends must be ≥ 1, got {num_bends}")
    ends = point_in(surface, start), point_in(surface, end)
    return torch.cat([ends[0][None], evenly_spaced(*ends, num_bends), ends[1][None]])


def _bending(
    straight: Curve,
    train: LossSurface,
    steps: int,
    lr: float,
    generator: GeneratorLike,
    partial: str | Path | None,
) -> Bending:
    if steps < 1:
        raise ValueError(f"steps must be ≥ 1, got {steps}")
    if train.size != straight.controls.shape[1]:
        raise ValueError(f"expected a surface to train on with {straight.controls.shape[1]} moving parameters, got {train.size}")
    generator = generator_from(generator)
    times = torch.rand(steps, generator=generator, dtype=torch.float64, device=generator.device).cpu()
    surface = train.with_batch_statistics() if train.objective.batch_norm == "recompute" else train
    straight = replace(straight, controls=straight.controls.to(surface.origin))
    return Bending(surface, straight, times, lr, None if partial is None else Path(partial))


def _told(curve: Curve, here: LossSurface) -> dict[str, Any]:
    """What a grid must know of its only axis, t: one unit is the way from end to end."""
    norms = [float((curve.end - curve.start).double().norm())]
    origin_norm = float(here.origin.double().norm())
    return {"kind": curve.meta["kind"], "num_bends": curve.num_bends, "direction_norms": norms, "origin_norm": origin_norm}


def _lengths(shares: Tensor, directions: Directions) -> np.ndarray:
    """How long the curve is up to each of its points, by straight steps, [T], from the shares [T, D] of its directions."""
    doubles = [direction.double().cpu() for direction in directions]
    gram = torch.tensor([[float(a @ b) for b in doubles] for a in doubles], dtype=torch.float64)
    steps = shares.diff(dim=0)  # [T − 1, D]
    lengths = torch.einsum("td,de,te->t", steps, gram, steps).clamp_min(0).sqrt()
    return np.concatenate([[0.0], lengths.cumsum(0).numpy()])
