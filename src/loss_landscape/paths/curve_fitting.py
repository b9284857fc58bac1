"""Training the control points of a curve between two nets until the loss along it is low (Garipov et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loss_landscape.checkpointing import Checkpointing, Finished, Resumable, require_options
from loss_landscape.directions.points import PointLike, point_in
from loss_landscape.objective.functional_net import undisturbed
from loss_landscape.paths.curves import Curve, CurveInfo, between_nets, bezier, evenly_spaced, polychain, require_curve
from loss_landscape.progress import ProgressEstimate
from loss_landscape.randomness import GeneratorLike, generator_from
from loss_landscape.surface.surface import LossSurface, require_surface

MEAN_DECAY, SQUARE_DECAY, EPSILON = 0.9, 0.999, 1e-8  # Adam's own (Kingma & Ba 2015)


def fit_bezier(
    surface: LossSurface,
    start: PointLike,
    end: PointLike,
    *,
    steps: int = 100,
    lr: float = 0.01,
    num_control_points: int = 3,
    generator: GeneratorLike = None,
    checkpointing: Checkpointing = Checkpointing(),
) -> Curve:
    """A Bézier curve of low loss from the net `start` to the net `end`: `fit_curve` from the straight line between them.

    Each is a net, its state dict, a file of that, or a vector [P] in the layout of `surface`. Of `num_control_points` ≥ 3, which
    are the ends and those that are trained, three give the quadratic curve of Garipov et al. 2018, §3.2. `steps`, `lr`,
    `generator` and `checkpointing` are `fit_curve`'s.

    >>> fit_bezier(surface, torch.tensor([-1.0, 1.0]), torch.tensor([1.0, 1.0]), steps=10)
    Curve(bezier, 3 control points of 2 parameters, fitted by 10 steps)
    """
    straight = between_nets(surface, bezier(_straight_controls(surface, start, end, num_control_points)), start, end)
    return fit_curve(surface, straight, steps=steps, lr=lr, generator=generator, checkpointing=checkpointing)


def fit_polychain(
    surface: LossSurface,
    start: PointLike,
    end: PointLike,
    *,
    steps: int = 100,
    lr: float = 0.01,
    num_control_points: int = 3,
    generator: GeneratorLike = None,
    checkpointing: Checkpointing = Checkpointing(),
) -> Curve:
    """A chain of straight lines of low loss from the net `start` to the net `end`, through `num_control_points` ≥ 3 points.

    The ends are two of these. `surface`, `steps`, `lr`, `generator` and `checkpointing` are `fit_curve`'s.

    >>> fit_polychain(surface, torch.tensor([-1.0, 1.0]), torch.tensor([1.0, 1.0]), steps=10, num_control_points=4)
    Curve(polychain, 4 control points of 2 parameters, fitted by 10 steps)
    """
    straight = between_nets(surface, polychain(_straight_controls(surface, start, end, num_control_points)), start, end)
    return fit_curve(surface, straight, steps=steps, lr=lr, generator=generator, checkpointing=checkpointing)


def fit_curve(
    surface: LossSurface,
    curve: Curve,
    *,
    steps: int = 100,
    lr: float = 0.01,
    max_seconds: float | None = None,
    generator: GeneratorLike = None,
    checkpointing: Checkpointing = Checkpointing(),
) -> Curve:
    """The `curve` with the control points between its ends trained so that the loss of `surface` along it is low.

    Each of `steps` draws one t from the generator (None: the same ones every time), evenly from 0 to 1, takes the next batch of
    the surface, and moves the control points by Adam (Garipov et al. 2018, §3.1): lr is held for the first half, then falls to a
    hundredth. A surface that recomputes batch norm's statistics is trained on each batch's own, any other as it is evaluated.

    After `max_seconds`, those of interrupted calls included, the curve comes back as it was given and `info.fell_back` says why;
    so where a control point is not finite. Of `checkpointing`, `file` keeps what is done, with the same bits when it goes on, and
    `progress` is told of it. Raises ValueError for a curve of another layout, and one without a control point to train.

    >>> given = bezier(torch.tensor([[-1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]))
    >>> fitted = fit_curve(surface, given, steps=200, lr=0.05)
    >>> float(fitted.controls[1, 1]) < 0.0  # below the straight line, whose loss is lowest where w₂ is 0
    True
    """
    require_options(checkpointing, "file", "progress", by="fitting a curve")
    require_surface(surface)
    _require_trainable(surface, curve, steps, lr)
    generator = generator_from(generator)
    times = torch.rand(steps, generator=generator, dtype=torch.float64, device=generator.device).cpu()
    surface = surface.with_batch_statistics() if surface.objective.batch_norm == "recompute" else surface
    given = replace(curve, controls=curve.controls.to(surface.origin))
    return fit_result(CurveFit(surface, given, times, lr, checkpointing), max_seconds)


@dataclass(frozen=True, eq=False)
class AdamState:
    """What a step changes; every step makes a new one, so that an interruption leaves a whole one."""

    trained: Tensor  # [B, P], the control points between the ends
    mean: Tensor  # [B, P], the running mean of the gradient
    square: Tensor  # [B, P], and of its square
    step: int = 0

    @classmethod
    def initial(cls, trained: Tensor) -> AdamState:
        """Before the first step."""
        return cls(trained, torch.zeros_like(trained), torch.zeros_like(trained))

    def updated(self, gradients: Tensor, lr: float) -> AdamState:
        """After a step along `gradients` [B, P]."""
        step = self.step + 1
        mean = self.mean.lerp(gradients, 1 - MEAN_DECAY)
        square = self.square.lerp(gradients.square(), 1 - SQUARE_DECAY)
        size = (square / (1 - SQUARE_DECAY**step)).sqrt_().add_(EPSILON)
        return AdamState(self.trained - lr * (mean / (1 - MEAN_DECAY**step)) / size, mean, square, step)


@dataclass(eq=False)
class CurveFit:
    """The training of a curve's control points on a surface, a step for each of `times`."""

    surface: LossSurface
    given: Curve
    times: Tensor  # [steps], float64
    lr: float
    checkpointing: Checkpointing
    losses: Tensor = field(init=False)  # [steps], of each step's batch at its t; NaN: not yet
    state: AdamState = field(init=False)

    def __post_init__(self) -> None:
        self.shares = self.given.weights(self.times)  # [steps, K]
        self.losses = self.surface.origin.new_full((len(self.times),), torch.nan)
        self.state = AdamState.initial(self.given.controls[1:-1])
        self.resumable = Resumable(self.checkpointing.file, self._identity, self._finished, kind="curve")
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
        """The curve as its control points are now."""
        return replace(self.given, controls=torch.cat([self.given.start[None], self.state.trained, self.given.end[None]]))

    def _step(self, step: int, weight: float, batch: Any) -> None:
        shares = self.shares[step]
        loss, gradient = self._loss_and_gradient(self._mixed(shares.tolist()), weight, batch)
        self.losses[step] = loss
        gradients = shares[1:-1, None].to(gradient) * gradient  # dθ(t)/d controls[k] is the share of control point k
        self.state = self.state.updated(gradients, self.lr * lr_factor(step / len(self.times)))

    def _mixed(self, shares: list[float]) -> Tensor:
        point = shares[0] * self.given.start
        for share, control in zip(shares[1:], [*self.state.trained, self.given.end], strict=True):
            point = point.add(control, alpha=share)
        return point

    def _loss_and_gradient(self, point: Tensor, weight: float, batch: Any) -> tuple[Tensor, Tensor]:
        objective = self.surface.objective
        leaves = {name: part.requires_grad_() for name, part in self.surface.layout.unflatten(point).items()}
        with torch.enable_grad():
            loss = weight * objective.batch_loss(leaves, batch)
            if objective.regularizer is not None:
                loss = loss + objective.penalty(leaves)
            gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return loss.detach(), self.surface.layout.flatten(gradients)

    def _identity(self) -> Iterable[Tensor | str]:
        """What no other training has all of; a penalty may be 0 at an end, but not in the middle as well."""
        surface, given = self.surface, self.given
        facts = [given.info.kind, surface.objective.batch_norm, str(surface.dtype), surface.layout.names, self.lr]
        losses = [surface.moved_to(point).loss() for point in (given.start, given.point(0.5))]
        return given.controls, self.times, repr([*facts, *losses, surface.objective.batch_weights.values])

    def _resume(self) -> None:
        """Take up what the file holds of this very training."""
        found = self.resumable.load()
        if found is None:
            return
        losses, trained, mean, square = (self._placed(found.arrays[name]) for name in ("losses", "trained", "mean", "square"))
        self.losses, self.state = losses, AdamState(trained, mean, square, found.facts["step"])
        self.resumable.seconds_before = found.seconds

    def _placed(self, stored: np.ndarray) -> Tensor:
        return torch.from_numpy(stored).to(self.surface.origin)

    def _finished(self) -> Finished:
        state = self.state
        tensors = {"losses": self.losses, "trained": state.trained, "mean": state.mean, "square": state.square}
        return Finished({name: tensor.cpu().numpy() for name, tensor in tensors.items()}, {"step": state.step})


def fit_result(fit: CurveFit, max_seconds: float | None) -> Curve:
    """The curve once all steps are done, or the given one and in `info.fell_back` why; out of time, it keeps the file."""
    progress = ProgressEstimate(fit.checkpointing)
    with undisturbed(fit.surface.device), torch.no_grad(), fit.resumable.kept():
        why = _carried_on(fit, max_seconds, progress)
    if fit.is_done:
        fit.resumable.remove()
    else:
        fit.resumable.save()
    progress.finished()
    curve, losses = fit.curve() if why is None else fit.given, fit.losses[: fit.state.step].tolist()
    info = CurveInfo(curve.info.kind, len(losses), fit.lr, fit.resumable.seconds, why, curve.info.not_moved, tuple(losses))
    return replace(curve, info=info)


def _carried_on(fit: CurveFit, max_seconds: float | None, progress: ProgressEstimate) -> str | None:
    """Take the steps that are left; why the control points can't be used, where they can't."""
    total = len(fit.times)
    while not fit.is_done:
        if max_seconds is not None and fit.resumable.seconds > max_seconds:
            done = f"{fit.state.step} of {total} steps"
            return f"max_seconds={max_seconds:g} were over after {done}, so the curve stays as it was given"
        fit.advance()
        progress.part_done(fit.state.step, total, fit.resumable.seconds)
    if not bool(torch.isfinite(fit.state.trained).all()):
        return f"control points left the finite numbers, with lr={fit.lr:g}, so the curve stays as it was given; take a lower lr"
    return None


def lr_factor(progress: float) -> float:
    """What is left of the learning rate: 1 for the first half, then falling to 0.01 at nine tenths, then that."""
    return min(1.0, max(0.01, 1.0 - (progress - 0.5) / 0.4 * 0.99))


def _endless(surface: LossSurface) -> Iterator[tuple[float, Any]]:
    """The batches over and over; each weight times their number, so that a step's loss is the surface's on average."""
    count = sum(weight != 0 for weight in surface.objective.batch_weights.values)
    while True:
        for weight, batch in surface.objective.weighted_batches():
            yield count * weight, batch


def _straight_controls(surface: LossSurface, start: PointLike, end: PointLike, count: int) -> Tensor:
    """The ends [P] with evenly spaced points of the straight line between them, [count, P]."""
    if count < 3:
        raise ValueError(f"num_control_points must be ≥ 3, the two ends and at least one to train, got {count}")
    return evenly_spaced(point_in(surface, start), point_in(surface, end), count)


def _require_trainable(surface: LossSurface, curve: Curve, steps: int, lr: float) -> None:
    if not 0 < lr < math.inf:
        raise ValueError(f"lr must be finite and > 0, got {lr}")
    if steps < 1:
        raise ValueError(f"steps must be ≥ 1, got {steps}")
    require_curve(curve, surface.size)
    if curve.num_control_points < 3:
        raise ValueError("a curve of two control points is the line between its ends: give bezier or polychain three or more")
