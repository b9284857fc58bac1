"""Bending a curve between two nets until the loss along it is low."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loss_landscape.checkpointing import Finished, Resumable
from loss_landscape.objective.functional_net import undisturbed
from loss_landscape.paths.curves import Curve
from loss_landscape.progress import ProgressEstimate
from loss_landscape.surface.surface import LossSurface

MEAN_DECAY, SQUARE_DECAY, EPSILON = 0.9, 0.999, 1e-8  # Adam's own (Kingma & Ba 2015)


@dataclass(frozen=True, eq=False)
class BendState:
    """What a step changes; every step makes a new one, so that an interruption leaves a whole one."""

    bends: Tensor  # [B, P]
    mean: Tensor  # [B, P], Adam's running mean of the gradient
    square: Tensor  # [B, P], and of its square
    step: int = 0

    @classmethod
    def at_rest(cls, bends: Tensor) -> BendState:
        """Before the first step."""
        return cls(bends, torch.zeros_like(bends), torch.zeros_like(bends))

    def moved(self, slopes: Tensor, lr: float) -> BendState:
        """After a step of Adam along the gradient `slopes` [B, P]."""
        step = self.step + 1
        mean = self.mean.lerp(slopes, 1 - MEAN_DECAY)
        square = self.square.lerp(slopes.square(), 1 - SQUARE_DECAY)
        size = (square / (1 - SQUARE_DECAY**step)).sqrt_().add_(EPSILON)
        return BendState(self.bends - lr * (mean / (1 - MEAN_DECAY**step)) / size, mean, square, step)


@dataclass(eq=False)
class Bending:
    """The training of a curve's bends on a surface, a step for each of `times`, kept in `file` (None: nowhere)."""

    surface: LossSurface
    straight: Curve
    times: Tensor  # [steps], float64
    lr: float
    file: Path | None
    losses: Tensor = field(init=False)  # [steps], of each step's batch at its t; NaN: not yet
    state: BendState = field(init=False)

    def __post_init__(self) -> None:
        self.shares = self.straight.weights(self.times)  # [steps, K]
        self.losses = self.surface.origin.new_full((len(self.times),), torch.nan)
        self.state = BendState.at_rest(self.straight.controls[1:-1])
        self.resumable = Resumable(self.file, self._identity, self._finished)
        self._resume()
        self._batches = islice(_endless(self.surface), self.state.step, None)

    @property
    def is_done(self) -> bool:
        """Whether all steps are done."""
        return self.state.step == len(self.times)

    def advance(self) -> None:
        """Take the next step."""
        self._step(self.state.step, *next(self._batches))
        self.resumable.save_by_the_clock()

    def curve(self) -> Curve:
        """The curve as its bends are now."""
        controls = torch.cat([self.straight.start[None], self.state.bends, self.straight.end[None]])
        return replace(self.straight, controls=controls)

    def _step(self, step: int, weight: float, batch: Any) -> None:
        shares = self.shares[step]
        loss, slope = self._loss_and_slope(self._mixed(shares.tolist()), weight, batch)
        self.losses[step] = loss
        slopes = shares[1:-1, None].to(slope) * slope  # dθ(t)/d bends[k] is the share of bend k
        self.state = self.state.moved(slopes, self.lr * fall(step / len(self.times)))

    def _mixed(self, shares: list[float]) -> Tensor:
        point = shares[0] * self.straight.start
        for share, control in zip(shares[1:], [*self.state.bends, self.straight.end], strict=True):
            point = point.add(control, alpha=share)
        return point

    def _loss_and_slope(self, point: Tensor, weight: float, batch: Any) -> tuple[Tensor, Tensor]:
        leaves = {name: part.requires_grad_() for name, part in self.surface.layout.unflatten(point).items()}
        with torch.enable_grad():
            loss = weight * self.surface.objective.batch_loss(leaves, batch)
            if self.surface.objective.regularizer is not None:
                loss = loss + self.surface.objective.penalty(leaves)
            slopes = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return loss.detach(), self.surface.layout.flatten(slopes)

    def _identity(self) -> Iterable[Tensor | str]:
        """What no other training has all of."""
        surface, straight = self.surface, self.straight
        facts = [straight.meta["kind"], surface.objective.batch_norm, str(surface.dtype), surface.layout.names, self.lr]
        return straight.controls, self.times, repr([*facts, surface.moved_to(straight.start).loss()])

    def _resume(self) -> None:
        """Take up what the file holds of this very training."""
        found = self.resumable.load()
        if found is None:
            return
        losses, *state = (self._placed(found.arrays[name]) for name in ("losses", "bends", "mean", "square"))
        self.losses, self.state, self.resumable.seconds_before = losses, BendState(*state, found.facts["step"]), found.seconds

    def _placed(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.surface.origin)

    def _finished(self) -> Finished:
        state = self.state
        tensors = {"losses": self.losses, "bends": state.bends, "mean": state.mean, "square": state.square}
        return Finished({name: tensor.cpu().numpy() for name, tensor in tensors.items()}, {"step": state.step})


def bent(bending: Bending, max_seconds: float | None, progress: ProgressEstimate) -> Curve:
    """The curve once all steps are done, or the straight one and in `meta["fell_back"]` why; out of time, it keeps the file."""
    with undisturbed(bending.surface.device), torch.no_grad(), bending.resumable.kept():
        why = _carried_on(bending, max_seconds, progress)
    if bending.is_done:
        bending.resumable.remove()
    else:
        bending.resumable.save()
    progress.finished()
    curve = bending.curve() if why is None else bending.straight
    losses = bending.losses[: bending.state.step].tolist()
    facts = {"steps": len(losses), "lr": bending.lr, "num_bends": curve.num_bends, "seconds": bending.resumable.seconds}
    return replace(curve, meta={**curve.meta, **facts, "fell_back": why, "training_losses": losses})


def _carried_on(bending: Bending, max_seconds: float | None, progress: ProgressEstimate) -> str | None:
    """Take the steps that are left; why the bends can't be used, where they can't."""
    total = len(bending.times)
    while not bending.is_done:
        if max_seconds is not None and bending.resumable.seconds > max_seconds:
            done = f"{bending.state.step} of {total} steps"
            return f"max_seconds={max_seconds:g} were over after {done}, so the bends stay on the straight line"
        bending.advance()
        progress.part_done(bending.state.step, total, bending.resumable.seconds)
    if not bool(torch.isfinite(bending.state.bends).all()):
        return f"the bends left the finite numbers, with lr={bending.lr:g}, so they stay on the straight line; take a lower lr"
    return None


def fall(progress: float) -> float:
    """What is left of the learning rate: 1 for the first half, then falling to 0.01 at nine tenths, then that."""
    return min(1.0, max(0.01, 1.0 - (progress - 0.5) / 0.4 * 0.99))


def _endless(surface: LossSurface) -> Iterator[tuple[float, Any]]:
    """The batches over and over; each weight times their number, so that a step's loss is the surface's on average."""
    count = sum(weight != 0 for weight in surface.objective.batch_weights.values)
    while True:
        for weight, batch in surface.objective.weighted_batches():
            yield count * weight, batch
