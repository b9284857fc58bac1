"""The loss on planes through the trained parameters: Hessian-aligned, random, and along the way that training took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from loss_landscape import Directions, Grid, LossSurface, merge_tree, random_directions, trajectory_directions
from loss_landscape.results.info import FloatNoise
from loss_landscape.shards import Shard
from loss_landscape.surface.strategy import Precision
from taskshift import checkpoint
from taskshift.evaluators.axes import (
    LOSS_ERROR,
    RUNNING_STATISTICS,
    BatchNormOptions,
    GridOptions,
    HessianAxes,
    HessianPlane,
    Normalization,
    SavedFiles,
    Span,
    is_kept,
    kept,
    request,
    text_file,
)
from taskshift.evaluators.evaluator import Artifact, Evaluator, Findings, MeasuredPhase, Measurement, Request
from taskshift.quantities import Quantity
from taskshift.randomness import generator

FEWEST_POINTS = 3  # of a trajectory that has a plane


class LeftOut(Exception):
    """Says in a sentence why there is no such plane."""


QUANTITIES = (
    Quantity(
        "<kind>/baseline_loss",
        "L(θ), computed by itself; the centre cell is written from it",
        "loss",
        error="<kind>/baseline_loss_standard_error",
    ),
    Quantity(
        "<kind>/baseline_loss_standard_error",
        "standard deviation of L(θ) over the evaluation examples / √their number; absent where batch norm takes each batch's own "
        "statistics",
        "loss",
    ),
    Quantity("<kind>/min_loss", "lowest finite cell", "loss"),
    Quantity("<kind>/max_loss", "highest finite cell", "loss"),
    Quantity("<kind>/num_nonfinite", "cells that are NaN or infinite", "cells"),
    Quantity("<kind>/num_evaluated", "cells evaluated; the others are predicted", "cells", "`lla.tolerance`"),
    Quantity(
        "<kind>/held_out_error",
        "largest |L̂ − L|/|L| over cells that were evaluated to judge the prediction L̂; absent where no cell is predicted",
        "relative",
        "`lla.tolerance`",
    ),
    Quantity(
        "<kind>/num_minima",
        "minima of the plane with a persistence above `persistence_threshold` · (max_loss − min_loss), the global one among them",
        "minima",
        "Edelsbrunner et al. 2002; `persistence_threshold`",
    ),
    Quantity(
        "<kind>/total_persistence", "Σ (saddle − minimum) over all minima that join a lower one: 0 for a single basin", "loss"
    ),
    Quantity(
        "<kind>/noise_floor",
        "largest |L − L₆₄| over the centre, the lowest cells and up to 4 random ones, of a convnet on a CPU over the centre and "
        "the lowest alone; L₆₄ is the loss in float64; absent where `lla.dtype` is float64",
        "loss",
    ),
    Quantity("<kind>/centre_difference", "what the grid's own path gives at the centre, minus `baseline_loss`", "loss"),
    Quantity(
        "<kind>/centre_is_minimum",
        "1 where no cell on the two lines through the centre is lower than it by more than twice the largest |L − L₆₄| "
        "of the centre and the lowest cells, else 0",
        "0 or 1",
    ),
    Quantity(
        "<kind>/minimum_offset_alpha",
        "coordinate of the lowest cell on the first axis; 0 where it is the centre by that rule",
        "axis lengths",
    ),
    Quantity("<kind>/minimum_offset_beta", "the same on the second axis", "axis lengths"),
    Quantity(
        "<kind>/explained_variance_<k>",
        "trajectory only: share of axis k in Σ‖θₜ − θ‖² over the task's snapshots θₜ",
        "share",
        "Li et al. 2018",
    ),
    Quantity("<kind>/seconds", "time spent on the plane, over all attempts", "s"),
)


class Planes(Evaluator):
    """Up to three planes of the task's loss, each on a square grid whose centre is the net as it is.

    Random axes are Gaussian, drawn from the run's seed alone: tasks share the draw, while its normalisation follows each task's
    own parameters. Hessian axes are eigenvectors (see `axes.hessian_axes`). Trajectory axes are the principal ones of the task's
    snapshots about their last, stretched so that the farthest snapshot lies at 0.9.
    """

    quantities = QUANTITIES

    def __init__(
        self,
        grid_resolution: int = 41,
        high_res: bool = False,
        span: Span = (-1.0, 1.0),
        normalization: Normalization = "filter",
        include_random: bool = True,
        include_hessian: bool = True,
        include_trajectory: bool = True,
        hessian_axes: HessianAxes = "top",
        hessian_normalization: Normalization = "model",
        bn: BatchNormOptions = RUNNING_STATISTICS,
        chunk_size: int | None = None,
        max_eval_points_cap: int = 4096,
        precision: Precision = None,
        persistence_threshold: float = 0.01,
        save_numpy: bool = True,
        save_csv: bool = True,
        save_plots: bool = True,
    ):
        self.options = GridOptions(grid_resolution, high_res, span, chunk_size, max_eval_points_cap, bn, precision)
        if not 0 <= persistence_threshold < 1:
            raise ValueError(
                f"persistence_threshold is {persistence_threshold}; it is a share of the plane's range, 0 or above, below 1"
            )
        self.persistence_threshold = persistence_threshold
        self.normalization, self.hessian = normalization, HessianPlane(hessian_axes, hessian_normalization, self.options)
        kinds = {"hessian": include_hessian, "random": include_random, "trajectory": include_trajectory}
        self.kinds = [kind for kind, included in kinds.items() if included]
        self.saved = SavedFiles(save_numpy, save_csv, save_plots)
        self.request = request(hessian_axes) if include_hessian else Request()

    def __call__(self, measurement: Measurement) -> Findings:
        scalars: dict[str, float] = {}
        artifacts: dict[str, Artifact] = {}
        for kind in self._kinds_at(measurement.phase):
            try:
                found, files = self._measured(kind, measurement)
            except LeftOut as reason:
                found, files = {}, {"LEFT_OUT.txt": text_file(f"{reason}\n")}
            scalars |= {f"{kind}/{name}": value for name, value in found.items()}
            artifacts |= {f"{kind}/{name}": file for name, file in files.items()}
        return Findings(scalars, artifacts)

    def compute_share(self, measurement: Measurement, shard: Shard) -> None:
        """A shard's chunks of every plane."""
        if not math.isfinite(measurement.surface.loss()):
            return
        for kind in self._kinds_at(measurement.phase):
            with suppress(LeftOut):
                if kind == "hessian":
                    self.hessian.compute_share(measurement, shard)
                elif not is_kept(measurement.scratch / kind):
                    self._evaluated(kind, measurement, shard)

    def _kinds_at(self, phase: MeasuredPhase) -> list[str]:
        return [kind for kind in self.kinds if kind != "trajectory" or phase == "end"]

    def _measured(self, kind: str, measurement: Measurement) -> tuple[dict[str, float], dict[str, Artifact]]:
        """A plane's numbers and files; a plane that is finished is read from `scratch`."""
        loss = measurement.surface.loss()
        if not math.isfinite(loss):
            raise LeftOut(f"The loss at the net's parameters is {loss}, so no plane around them has a centre.")
        folder = measurement.scratch / kind
        grid = kept(folder, lambda: self.hessian.grid(measurement) if kind == "hessian" else self._evaluated(kind, measurement))
        files = self.saved.of(folder, predicted=not grid.evaluated.all())
        if self.saved.plots:
            title = f"{kind.capitalize()} plane, {measurement.phase} of task {measurement.task.index}"
            files |= {
                "contour.png": partial(_contour, grid=grid, title=title),
                "surface.png": partial(_relief, grid=grid, title=title),
            }
        return numbers_of(grid) | topology_of(grid, self.persistence_threshold), files

    def _evaluated(self, kind: str, measurement: Measurement, shard: Shard | None = None) -> Grid:
        """The random plane or the trajectory's, or a shard's part of it."""
        surface = self.options.surface(measurement)
        directions = (self._random if kind == "random" else self._trajectory)(surface, measurement)
        grid = self.options.evaluate(measurement, surface, directions, measurement.scratch / f"{kind}.partial.npz", shard)
        if kind == "random" or shard is not None:
            return grid
        directions = with_losses(surface, directions, measurement.trajectory)
        return replace(grid, info=replace(grid.info, directions=directions.info))

    def _random(self, surface: LossSurface, measurement: Measurement) -> Directions:
        draw = generator(measurement.seed, "planes", "random")  # no task in it: see the class
        excludes = self.options.bn.exclude_bn_and_bias
        return random_directions(surface, normalization=self.normalization, exclude_bn_and_bias=excludes, generator=draw)

    def _trajectory(self, surface: LossSurface, measurement: Measurement) -> Directions:
        points = measurement.trajectory
        if len(points) < FEWEST_POINTS:
            raise LeftOut(
                f"A plane along the trajectory takes {FEWEST_POINTS} snapshots and this task has {len(points)}; train for more "
                "steps, or raise lla.training.max_checkpoints."
            )
        try:
            return trajectory_directions(surface, points, steps=[step_of(point) for point in points])
        except ValueError as error:  # snapshots on a line, or all the same: the library says which
            raise LeftOut(f"The task's {len(points)} snapshots give no plane: {error}.") from error


def numbers_of(grid: Grid) -> dict[str, float]:
    """What a plane says in numbers. Those of its centre are there only where a cell lies at the centre."""
    info, finite = grid.info, grid.losses[np.isfinite(grid.losses)]
    found = {
        "baseline_loss": info.baseline_loss,
        "min_loss": float(finite.min()) if finite.size else math.nan,
        "max_loss": float(finite.max()) if finite.size else math.nan,
        "num_nonfinite": float(grid.num_nonfinite),
        "num_evaluated": float(grid.num_evaluated),
        "seconds": info.seconds,
    }
    if (error := info.extra.get(LOSS_ERROR)) is not None:
        found[LOSS_ERROR] = error
    if info.largest_held_out_error is not None:
        found["held_out_error"] = info.largest_held_out_error
    if info.noise.floor is not None:
        found["noise_floor"] = info.noise.floor
    for number, share in enumerate(info.directions.explained_variance or (), start=1):
        found[f"explained_variance_{number}"] = share
    if info.centre_difference is not None:
        found |= {"centre_difference": info.centre_difference} | centre_of(grid, low_noise(info.noise))
    return found


def topology_of(grid: Grid, threshold: float) -> dict[str, float]:
    """How many minima persist by more than `threshold` of the plane's range, and the total persistence."""
    finite = grid.losses[np.isfinite(grid.losses)]
    if not finite.size:
        return {"num_minima": math.nan, "total_persistence": math.nan}
    tree = merge_tree(grid)
    return {
        "num_minima": float(tree.num_minima(above=threshold * float(np.ptp(finite)))),
        "total_persistence": tree.total_persistence,
    }


def low_noise(noise: FloatNoise) -> float:
    """The largest error against float64 at the centre and the lowest cells, in units of the loss; 0 where none was measured."""
    errors = [cell.absolute_error for cell in noise.checked if cell.why in ("centre", "lowest")]
    return max(filter(math.isfinite, errors), default=0.0)  # cells far up err by more, and say nothing of the bottom


def centre_of(grid: Grid, noise: float) -> dict[str, float]:
    """Where along each axis through the centre the loss is lowest, and whether that is the centre itself.

    A cell counts as lower than the centre only where it is so by more than twice `noise`, in units of the loss.
    """
    alpha, beta = grid.coordinates
    i, j = int(np.flatnonzero(alpha == 0)[0]), int(np.flatnonzero(beta == 0)[0])
    centre, offsets = grid.losses[i, j], []
    for axis, line in ((alpha, grid.losses[:, j]), (beta, grid.losses[i, :])):
        lowest = int(np.nanargmin(line))
        offsets.append(float(axis[lowest]) if line[lowest] < centre - 2 * noise else 0.0)
    return {
        "centre_is_minimum": float(offsets == [0.0, 0.0]),
        "minimum_offset_alpha": offsets[0],
        "minimum_offset_beta": offsets[1],
    }


def step_of(snapshot: Path) -> int:
    """How many steps of the task lie before the snapshot, from its file's name, step_000000120.pt."""
    return int(snapshot.stem.removeprefix("step_"))


def with_losses(surface: LossSurface, directions: Directions, snapshots: Sequence[Path]) -> Directions:
    """The directions whose trajectory has the loss at each point (`loss`) and at its projection on the plane (`plane_loss`).

    Both are the surface's: the net's buffers, such as batch norm's statistics, are those it has now.
    """
    points = directions.info.trajectory
    places = torch.tensor([point.coordinates for point in points], dtype=torch.float64)
    projected = surface.plane(directions).losses(places).tolist()
    own = [surface.losses(points=_opened(surface, snapshot)[None]).item() for snapshot in snapshots]
    known = zip(points, own, projected, strict=True)
    trajectory = tuple(replace(point, loss=loss, plane_loss=plane) for point, loss, plane in known)
    return replace(directions, info=replace(directions.info, trajectory=trajectory))


def _opened(surface: LossSurface, snapshot: Path) -> Tensor:
    state = checkpoint.load(snapshot, surface.device)
    return surface.layout.flatten({name: state[name].to(surface.dtype) for name in surface.layout.names})


def _contour(path: Path, grid: Grid, title: str) -> None:
    from loss_landscape.plot import plot_plane_contour  # imports matplotlib

    plot_plane_contour(path, grid, title=title)


def _relief(path: Path, grid: Grid, title: str) -> None:
    from loss_landscape.plot import plot_plane_surface

    plot_plane_surface(path, grid, title=title)
