"""Bending a curve between two nets until the loss along it is low."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loss_landscape.files import write_whole
from loss_landscape.grids.progress import Pace
from loss_landscape.objective.functional_net import undisturbed
from loss_landscape.paths.curves import Curve
from loss_landscape.surface.surface import LossSurface

SECONDS_BETWEEN_SAVES = 2.0
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
    seconds_before: float = 0.0  # spent by interrupted calls
    losses: Tensor = field(init=False)  # [steps], of each step's batch at its t; NaN: not yet
    state: BendState = field(init=False)

    def __post_init__(self) -> None:
        self._began = self._saved = time.monotonic()
        self.shares = self.straight.weights(self.times)  # [steps, K]
        self.losses = self.surface.origin.new_full((len(self.times),), torch.nan)
        self.state = BendState.at_rest(self.straight.controls[1:-1])
        self._open()
        self._batches = islice(_endless(self.surface), self.state.step, None)

    @property
    def seconds(self) -> float:
        """Spent on it until now."""
        return self.seconds_before + time.monotonic() - self._began

    @property
    def is_done(self) -> bool:
        """Whether all steps are done."""
        return self.state.step == len(self.times)

    def advance(self) -> None:
        """Take the next step."""
        self._step(self.state.step, *next(self._batches))
        if time.monotonic() - self._saved > SECONDS_BETWEEN_SAVES:
            self.save()

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

    def _identity(self) -> str:
        """What makes this training another one than any other."""
        facts = [
            self.straight.meta["kind"],
            self.surface.objective.batch_norm,
            str(self.surface.dtype),
            self.surface.layout.names,
            self.lr,
        ]
        at_start = self.surface.moved_to(self.straight.start).loss()
        tensors = [self.straight.controls.cpu().numpy().tobytes(), self.times.numpy().tobytes()]
        return hashlib.blake2b(b"".join([*tensors, repr([*facts, at_start]).encode()]), digest_size=16).hexdigest()

    def _open(self) -> None:
        """Take up what the file holds of this very training."""
        if self.file is None:
            return
        self._digest = self._identity()
        if not self.file.exists():
            return
        stored = torch.load(self.file, map_location=self.surface.device, weights_only=True)
        if stored["identity"] == self._digest:
            self.state, self.losses, self.seconds_before = BendState(**stored["state"]), stored["losses"], stored["seconds"]

    def save(self) -> None:
        """Write what is done into the file, where there is one."""
        if self.file is None:
            return
        facts = {"identity": self._digest, "losses": self.losses, "seconds": self.seconds, "state": vars(self.state)}
        write_whole(self.file, lambda path: torch.save(facts, path))
        self._saved = time.monotonic()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Inside, what is done is saved whatever stops the work."""
        try:
            yield
        except BaseException:
            self.save()
            raise


def bent(bending: Bending, max_seconds: float | None, pace: Pace) -> Curve:
    """The curve once all steps are done, or the straight one and in `meta["fell_back"]` why; out of time, it keeps the file."""
    with undisturbed(bending.surface.device), torch.no_grad(), bending.kept():
        why = _carried_on(bending, max_seconds, pace)
    if not bending.is_done:
        bending.save()
    elif bending.file is not None:
        bending.file.unlink(missing_ok=True)
    pace.finished()
    curve = bending.curve() if why is None else bending.straight
    losses = bending.losses[: bending.state.step].tolist()
    facts = {"steps": len(losses), "lr": bending.lr, "num_bends": curve.num_bends, "seconds": bending.seconds}
    return replace(curve, meta={**curve.meta, **facts, "fell_back": why, "training_losses": losses})


def _carried_on(bending: Bending, max_seconds: float | None, pace: Pace) -> str | None:
    """Take the steps that are left; why the bends can't be used, where they can't."""
    total = len(bending.times)
    while not bending.is_done:
        if max_seconds is not None and bending.seconds > max_seconds:
            done = f"{bending.state.step} of {total} steps"
            return f"max_seconds={max_seconds:g} were over after {done}, so the bends stay on the straight line"
        bending.advance()
        pace.chunk_done(bending.state.step, total, bending.seconds)
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
