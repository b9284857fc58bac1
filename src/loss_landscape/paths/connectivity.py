"""Are two nets joined by a path of low loss? The loss along curves between them, and its barrier."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from loss_landscape.checkpointing import Checkpointing, require_options
from loss_landscape.directions.points import PointLike, point_in
from loss_landscape.grids.cells import GridCells
from loss_landscape.grids.job import GridJob
from loss_landscape.paths.curves import Curve, between_nets, line, require_curve
from loss_landscape.results.directions import Directions
from loss_landscape.results.info import DirectionInfo, GridInfo
from loss_landscape.results.path_losses import PathLosses
from loss_landscape.surface.strategy import Evaluation
from loss_landscape.surface.surface import LossSurface, require_surface


def path_losses(
    surface: LossSurface,
    curve: Curve,
    *,
    num_points: int = 61,
    evaluation: Evaluation = Evaluation(noise_cells=0),
    checkpointing: Checkpointing = Checkpointing(),
) -> PathLosses:
    """The losses of `surface` at `num_points` even steps of t along a `curve`, ends included, as a line's grid has them.

    The curve may be any in the surface's layout, and need not pass through its origin: other surfaces of the same layout give
    test losses along it, or an error rate (with `+ 0 * outputs.sum()`, so that it depends on the parameters). The losses at the
    ends are the surface's own there, bit for bit. Buffers and frozen parameters are the surface's: for nets with batch norm give
    it `batch_norm="recompute"`. `evaluation`, which checks no cells in float64 unless told to, and `checkpointing` are as in
    `evaluate_grid`, but for shards. Raises ValueError for a curve of another layout and for less than two points.

    >>> curve = bezier(torch.tensor([[-1.0, 0.0], [0.0, 4.0], [1.0, 0.0]]))
    >>> path_losses(surface, curve, num_points=5)
    PathLosses(bezier, 5 points, length 4.576, highest 2 at t = 0, barrier 0)
    """
    require_surface(surface)
    if num_points < 2:
        raise ValueError(f"num_points must be ≥ 2, got {num_points}")
    require_curve(curve, surface.size)
    require_options(checkpointing, "file", "progress", "max_hours", by="path_losses")
    here, times = surface.moved_to(curve.start), np.linspace(0.0, 1.0, num_points)
    shares, info = curve.weights(torch.from_numpy(times)), _info(curve, here)  # [T, K]
    steps = list(curve.controls.to(here.origin) - here.origin)
    moving = [number for number, step in enumerate(steps) if bool((step != 0).any())]
    if not moving:  # a net and itself
        return PathLosses(times, np.full(num_points, here.loss()), np.zeros(num_points), GridInfo(info))
    directions = Directions(tuple(steps[number] for number in moving), info)

    plane = here.plane(directions, copy=False)
    cells = GridCells(plane, (times,), on_plane=lambda coordinates: curve.weights(coordinates[:, 0])[:, moving])
    strategy = plane.strategy(num_cells=num_points, evaluation=evaluation)
    job = GridJob(cells, directions, here.loss, strategy, noise_cells=evaluation.noise_cells, checkpointing=checkpointing)
    grid = job.run()
    losses = grid.losses
    losses[-1] = surface.moved_to(curve.end).loss()
    return PathLosses(times, losses, _lengths(shares[:, moving], directions), grid.info)


def barrier(surface: LossSurface, start: PointLike, end: PointLike, *, num_points: int = 25) -> PathLosses:
    """The losses on the straight line from the net `start` to the net `end`; its `barrier` is theirs.

    Each is a net, its state dict, a file of that, or a vector [P] in the layout of `surface`. `num_points` ≥ 2 are evaluated,
    the ends among them. Where the nets differ in what the surface does not move, `info.directions.not_moved` names it.

    >>> barrier(surface, torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.0]), num_points=3).barrier
    0.0
    """
    straight = line(point_in(surface, start), point_in(surface, end))
    return path_losses(surface, between_nets(surface, straight, start, end), num_points=num_points)


def _info(curve: Curve, here: LossSurface) -> DirectionInfo:
    """What a grid must know of its only axis, t: one unit is the way from end to end."""
    length, origin_norm = (float(vector.double().norm()) for vector in (curve.end - curve.start, here.origin))
    points, held = curve.num_control_points, curve.info.not_moved
    return DirectionInfo(curve.info.kind, (length,), origin_norm, num_control_points=points, not_moved=held)


def _lengths(shares: Tensor, directions: Directions) -> np.ndarray:
    """How long the curve is up to each of its points, by straight steps, [T], from the shares [T, D] of its directions."""
    doubles = [direction.double().cpu() for direction in directions]
    gram = torch.tensor([[float(a @ b) for b in doubles] for a in doubles], dtype=torch.float64)
    steps = shares.diff(dim=0)  # [T − 1, D]
    lengths = torch.einsum("td,de,te->t", steps, gram, steps).clamp_min(0).sqrt()
    return np.concatenate([[0.0], lengths.cumsum(0).numpy()])
