"""Whether autograd's gradient is the slope of the loss, as it is not behind a stop-gradient or a straight-through estimator."""

from __future__ import annotations

import torch
from torch import Tensor

from loss_landscape.objective.batch_loss import FAULTS
from loss_landscape.objective.layout import ParameterLayout
from loss_landscape.objective.objective import Objective, gradients
from loss_landscape.surface.few_examples import MAX_PARAMETERS_IN_FLOAT64, TermLoss, loss_of_few

STEPS = {torch.float64: 1e-7, torch.float32: 2e-3, torch.float16: 5e-2, torch.bfloat16: 2e-1}
"""Of a central difference, beside 1 + ‖θ‖, by what the net computes in.

In float64 it is smaller than the one of least error on a smooth loss, at which a net with kinks is already wrong: there each
kink that is crossed counts with 1/step.
"""
MISMATCH = {torch.float64: 1e-5, torch.float32: 1e-2}
"""Of slope and gradient, beside the gradient's norm, that is no rounding: eps/step is 1e-9 and 1e-4, and a net adds digits."""
STEPS_COMPARED = (1, 3, 9)
STEADY = 0.1  # relative: a fault of the derivatives is the same at each step, rounding and kinks that are crossed are not


def slope_objection(objective: Objective, layout: ParameterLayout, origin: Tensor) -> str:
    """What speaks against autograd's gradient at `origin` [P] on a few examples; nothing, "", where it is the loss's slope.

    (L(θ + hv) − L(θ − hv)) / 2h is held against the mean of the gradients at both ends along v; an objection is where
    they differ by as much at each of three steps h. v is the gradient's direction plus a random one: what autograd leaves out
    shows in the latter.
    """
    for dtype in dict.fromkeys((torch.float64 if len(origin) <= MAX_PARAMETERS_IN_FLOAT64 else objective.dtype, objective.dtype)):
        try:
            return _objection(objective if dtype == objective.dtype else objective.in_dtype(dtype), layout, origin.to(dtype))
        except torch.OutOfMemoryError:
            return ""
        except FAULTS:  # no such kernel in this dtype
            continue
    return ""


def _objection(objective: Objective, layout: ParameterLayout, origin: Tensor) -> str:
    loss = loss_of_few(objective)
    value, slope = value_and_gradient(loss, layout, origin)
    if not bool(value.isfinite()):
        return ""
    if not bool(slope.isfinite().all()):
        return f"autograd's gradient is not finite at the origin, though the loss is ({float(value):.4g})"
    along = _unit(slope) + _unit(random_vectors(origin, 1)[:, 0])
    for own in dict.fromkeys((objective.dtype, torch.float32)):  # it may compute in float32 inside
        tolerance = MISMATCH.get(own, MISMATCH[torch.float32])
        ends = list[tuple[float, float]]()
        for times in STEPS_COMPARED:
            step = times * STEPS.get(own, STEPS[torch.float32])
            ends.append(_quotient(loss, layout, origin, along * step * (1 + float(origin.norm())) / float(along.norm())))
            difference, mean = ends[-1]
            if abs(difference - mean) <= tolerance * max(float(slope.norm()), abs(difference)):
                return ""
        if steady([difference - mean for difference, mean in ends]):
            return (
                f"autograd's gradient is not the loss's slope ({ends[0][1]:.4g} along a random direction where the loss has "
                f"{ends[0][0]:.4g}): something is detached, rounded or masked, as by padding_idx, where it is differentiated"
            )
    return ""


def _quotient(loss: TermLoss, layout: ParameterLayout, origin: Tensor, step: Tensor) -> tuple[float, float]:
    """A loss's difference quotient over origin ± step, and the mean of the gradients at both ends, along the step."""
    (there, ahead), (back, behind) = (value_and_gradient(loss, layout, origin + sign * step) for sign in (1, -1))
    return float(there - back) / (2 * float(step.norm())), float((ahead + behind) @ step) / (2 * float(step.norm()))


def steady(values: list[float]) -> bool:
    """Whether values found with different steps are the same but for what steps do to smooth functions."""
    return max(values) - min(values) <= STEADY * max(map(abs, values))


def value_and_gradient(loss: TermLoss, layout: ParameterLayout, point: Tensor) -> tuple[Tensor, Tensor]:
    """A loss at a point [P], float64, and its gradient [P]."""
    leaves = {name: t.requires_grad_() for name, t in layout.unflatten(point.detach().clone()).items()}
    with torch.enable_grad():
        value = loss(leaves)
    if not value.requires_grad:
        return value.detach().double(), torch.zeros_like(point)
    return value.detach().double(), layout.flatten(gradients(value, leaves.values())).detach()


def random_vectors(like: Tensor, count: int) -> Tensor:
    """The same random vectors each time, [P, count]."""
    draw = torch.Generator().manual_seed(0)
    return torch.randn(len(like), count, generator=draw, dtype=torch.float64).to(like)


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm() if bool(vector.norm() > 0) else vector
