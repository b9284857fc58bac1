"""Planes and SAM surfaces against other programs, and planes that are partly predicted."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from lla_benchmarks import operations, peers
from lla_benchmarks.lines import Agreement, Arithmetic, Case, Line, Table, largest_difference, same_losses, timed
from lla_benchmarks.nets import CONVNET, MLP, RESNET18, SMOOTH_MLP, Kind, Problem, trained
from lla_benchmarks.sizes import Sizes
from loss_landscape import Evaluation, Grid, evaluate_grid, random_directions

SAME, SAME_IN_HALVES = 1e-4, 5e-2  # of 1 + |loss|; peers take the loss in float32
RHO, TOLERANCE = 0.05, 0.01


class OurPlane:
    """A surface with two random directions, and the plane they span over (−1, 1), as a user has it."""

    def __init__(self, problem: Problem, side: int, *, tolerance: float | None = None, **evaluation: Any):
        self.surface = problem.surface()
        self.directions = random_directions(self.surface, 2, generator=torch.Generator().manual_seed(1))
        self.side, self.tolerance, self.evaluation = side, tolerance, Evaluation(**evaluation)

    def __call__(self, number: int = 0) -> Grid:
        return self.of(self.side)

    def of(self, side: int, evaluation: Evaluation | None = None) -> Grid:
        """The plane with another number of cells."""
        how = evaluation or self.evaluation
        return evaluate_grid(self.surface, self.directions, side, tolerance=self.tolerance, evaluation=how)

    def remark(self, ours: list[Grid], theirs: list[Any]) -> str:
        """How the cells were evaluated, and what part of the time the check against float64 takes."""
        grid = ours[0]
        count = len(grid.info.noise.checked)
        few, exactly = replace(self.evaluation, noise_cells=0), replace(self.evaluation, noise_cells=16)
        without, _ = timed(lambda number: self.of(3, few), 0, self.surface.device)
        checked, small = timed(lambda number: self.of(3, exactly), 0, self.surface.device)
        seconds = count * max(checked - without, 0.0) / max(len(small.info.noise.checked), 1)
        share = f"in it: the check of {count} cells against float64, {seconds:.2g} s, {seconds / grid.info.seconds:.0%}"
        return f"{how_evaluated(ours, theirs)}; {share}"


# -- dense nets -------------------------------------------------------------------------------------------------


def plane_mlp(sizes: Sizes) -> Case:
    """The MLP's plane at two batch sizes, on a surface that stands and from the net on."""
    lines = [*_mlp_lines(sizes, sizes.batch, 4.0), *_mlp_lines(sizes, sizes.small_batch, 8.0)]
    return Case(lines, sizes.num_rounds)


def _mlp_lines(sizes: Sizes, batch_size: int, wanted: float) -> list[Line]:
    problem = trained(MLP, batch_size, sizes.num_steps, sizes.device)
    side = sizes.mlp_side
    plane = OurPlane(problem, side)
    if sizes.device.type == "cuda":
        wanted = 20.0  # bound by launches

    def interpolated(number: int) -> np.ndarray:
        return peers.interpolated_plane(problem, plane.directions, side)

    def arithmetic() -> Arithmetic:
        return Arithmetic(side**2 * operations.affine_cell(problem, 2), side**2 * operations.forward(problem))

    work = _work(side, MLP, batch_size)
    check = partial(_checked_walk, plane, lambda: interpolated(0))
    return [
        Line(work, peers.LOSS_LANDSCAPES, plane, interpolated, check, arithmetic, wanted, plane.remark),
        Line(
            f"{work}, surface and directions made anew",
            peers.LOSS_LANDSCAPES,
            lambda number: OurPlane(problem, side)(),
            lambda number: peers.random_plane(problem, side),
            check,
            arithmetic,
            remark=lambda ours, theirs: "the peer's random_plane, ours with LossSurface and random_directions",
        ),
    ]


def _checked_walk(plane: OurPlane, interpolated: Any) -> Agreement:
    """Our plane against loss-landscapes' where both were; how far its even rows are off where it says it was."""
    ours, walked = plane().losses, interpolated()
    theirs = peers.placed(walked)
    seen = np.isfinite(theirs)
    off = largest_difference(ours[0::2], walked[0::2])
    return same_losses(
        ours[seen], theirs[seen], SAME, f"the peer's even rows lie one step aside: as they stand, {off:.2g} of 1 + |loss| off"
    )


# -- convolutional nets -----------------------------------------------------------------------------------------


def plane_convnet(sizes: Sizes) -> Case:
    """The convnet's plane, as it is and compiled."""
    problem = trained(CONVNET, sizes.batch, sizes.num_steps, sizes.device)
    plane = OurPlane(problem, sizes.convnet_side, compile=False)
    compiled = OurPlane(problem, sizes.convnet_side, compile=True)
    first_call: list[float] = []

    def interpolated(number: int) -> np.ndarray:
        return peers.interpolated_plane(problem, plane.directions, sizes.convnet_side)

    def arithmetic() -> Arithmetic:
        forward = sizes.convnet_side**2 * operations.forward(problem)
        return Arithmetic(forward, forward)

    def check_compiled() -> Agreement:
        first, _ = timed(compiled, 0, sizes.device)
        first_call.append(first - timed(compiled, 0, sizes.device)[0])
        return same_losses(compiled().losses, plane().losses, SAME, "against ours uncompiled")

    def remark_compiled(ours: list[Grid], theirs: list[Any]) -> str:
        return f"compiling took {first_call[0]:.1f} s; {compiled.remark(ours, theirs)}"

    work, peer = _work(sizes.convnet_side, CONVNET, sizes.batch), peers.LOSS_LANDSCAPES
    check = partial(_checked_walk, plane, lambda: interpolated(0))
    return Case(
        [
            Line(work, peer, plane, interpolated, check, arithmetic, 3.0, plane.remark),
            Line(f"{work}, compiled", peer, compiled, interpolated, check_compiled, arithmetic, 4.5, remark_compiled),
        ],
        sizes.num_rounds,
    )


def plane_resnet(sizes: Sizes) -> Case:
    """ResNet-18's plane in float32 and in bfloat16."""
    problem = trained(RESNET18, sizes.resnet_batch, sizes.resnet_steps, sizes.device)
    plane, side = OurPlane(problem, sizes.resnet_side), sizes.resnet_side
    halves = OurPlane(problem, side, precision="bfloat16")
    loop = peers.PlainLoop(problem, plane.directions)
    few = sizes.checked_side

    def theirs(number: int) -> np.ndarray:
        return loop.plane(side)

    def arithmetic(dtype: torch.dtype) -> Arithmetic:
        forward = side**2 * operations.forward(problem)
        return Arithmetic(forward, forward, dtype)

    def check() -> Agreement:
        return same_losses(plane.of(few).losses, loop.plane(few), SAME)

    def check_halves() -> Agreement:
        return same_losses(halves.of(few).losses, plane.of(few).losses, SAME_IN_HALVES, "against ours in float32")

    def remark_halves(ours: list[Grid], theirs: list[np.ndarray]) -> str:
        error, told = largest_difference(ours[0].losses, theirs[0]), ours[0].info.noise.precision_error
        sample = f"it reports {told.relative:.2g} of the loss in {told.num_cells} cells"
        return f"largest error over all cells {error:.2g} of 1 + |loss|, {sample}; {how_evaluated(ours, theirs)}"

    work, peer = _work(side, RESNET18, sizes.resnet_batch), peers.PLAIN_LOOP
    return Case(
        [
            Line(work, peer, plane, theirs, check, partial(arithmetic, torch.float32), 1.15, plane.remark),
            Line(
                f"{work}, bfloat16", peer, halves, theirs, check_halves, partial(arithmetic, torch.bfloat16), 1.9, remark_halves
            ),
        ],
        sizes.slow_rounds,
    )


def _work(side: int, kind: Kind, batch_size: int) -> str:
    return f"{side}×{side} plane, {kind.name}, batch {batch_size}"


def how_evaluated(ours: list[Grid], theirs: list[Any]) -> str:
    """By which strategy, and how many cells at a time."""
    how = ours[0].info.evaluation
    note = f" ({how.strategy_note})" if how.strategy_note else ""
    return f"strategy `{how.strategy}`, {how.chunk} cells at a time{note}"


# -- SAM surfaces -----------------------------------------------------------------------------------------------


def sam(sizes: Sizes) -> Case:
    """SAM surfaces of the MLP and the convnet."""
    return Case(
        [_sam_line(sizes, MLP, sizes.sam_side, 3.0), _sam_line(sizes, CONVNET, sizes.sam_convnet_side, 1.4)], sizes.slow_rounds
    )


def _sam_line(sizes: Sizes, kind: Kind, side: int, wanted: float) -> Line:
    problem = trained(kind, sizes.batch, sizes.num_steps, sizes.device)
    surface = problem.surface()
    directions = random_directions(surface, 2, generator=torch.Generator().manual_seed(1))
    loop = peers.PlainLoop(problem, directions)

    def ours(number: int, side: int = side) -> Grid:
        return evaluate_grid(surface, directions, rho=RHO, resolution=side)

    def check() -> Agreement:
        few = sizes.checked_side
        return same_losses(ours(0, few).losses, loop.sam_plane(few, RHO), SAME)

    def arithmetic() -> Arithmetic:
        theirs = operations.counted(lambda: loop.sam_plane(1, RHO))
        return Arithmetic(side**2 * (operations.gram_sam_cell(problem, 2) if kind is MLP else theirs), side**2 * theirs)

    work = f"{side}×{side} SAM surface, {kind.name}, batch {sizes.batch}"
    return Line(work, peers.PLAIN_LOOP, ours, lambda number: loop.sam_plane(side, RHO), check, arithmetic, wanted, how_evaluated)


# -- predicted cells --------------------------------------------------------------------------------------------


def tolerance(sizes: Sizes) -> Table:
    """What `tolerance` saves along training, and the largest error of a predicted cell against evaluating all."""
    nets = ((SMOOTH_MLP, sizes.batch), (MLP, sizes.batch), (CONVNET, sizes.small_batch))
    savings = [_saving(sizes, kind, batch_size, num_steps) for kind, batch_size in nets for num_steps in sizes.stages]
    fewer = statistics.mean(saving.fewer for saving in savings)
    return Table(
        f"Planes of {sizes.mlp_side}×{sizes.mlp_side} cells with `tolerance={TOLERANCE}`, against ours with every cell",
        ("net", "training steps", "cells evaluated", "times fewer", "times faster", "largest error of a cell", "within"),
        [saving.row() for saving in savings],
        f"On average {fewer:.2f} times fewer cells. Errors are |L̂ − L|/|L|.",
    )


@dataclass(frozen=True)
class Saving:
    """One plane with cells predicted, beside the plane with every cell."""

    net: str
    num_steps: int
    evaluated: int
    cells: int
    faster: float
    error: float

    @property
    def fewer(self) -> float:
        """How many times fewer cells were evaluated."""
        return self.cells / self.evaluated

    def row(self) -> Sequence[str]:
        """As the table has it."""
        times = (f"{self.fewer:.2f}", f"{self.faster:.2f}")
        within = "yes" if self.error <= TOLERANCE else "no"
        return (self.net, str(self.num_steps), f"{self.evaluated} of {self.cells}", *times, f"{self.error:.2g}", within)


def _saving(sizes: Sizes, kind: Kind, batch_size: int, num_steps: int) -> Saving:
    problem = trained(kind, batch_size, num_steps, sizes.device)
    plane, predicted = OurPlane(problem, sizes.mlp_side), OurPlane(problem, sizes.mlp_side, tolerance=TOLERANCE)
    for program in (plane, predicted):
        program()  # what a first plane loads and traces is not the tolerance's
    every_seconds, every = timed(plane, 0, sizes.device)
    seconds, some = timed(predicted, 0, sizes.device)
    error = float(np.max(np.abs(some.losses - every.losses) / np.abs(every.losses)))
    name = f"{kind.name}, batch {batch_size}"
    return Saving(name, num_steps, some.num_evaluated, every.losses.size, every_seconds / seconds, error)
