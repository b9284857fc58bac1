"""How near an optimizer is to where its steps diverge: the edge of stability."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from loss_landscape import (
    HessianOperator,
    LossSurface,
    PreconditionedOperator,
    adam_preconditioner,
    eigenpairs,
    stability_thresholds,
)

THRESHOLD = (
    "curvature above which the optimizer's steps diverge on a quadratic: SGD 2/η, with momentum β (2 + 2β)/η, over 1 "
    "− dampening, with Nesterov's (2 + 2β)/((1 + 2β)η); Adam, AdamW (2 + 2β₁)/((1 − β₁)η), AdamW's 2 being 2 − ηλ; "
    "infinite where η is 0, absent for others"
)
TO_THRESHOLD = (
    "largest λ / `stability_threshold`, for Adam and AdamW the largest λ of D^(−1/2) H D^(−1/2), D = (1 − β₁ᵗ)(√v̂ + "
    "ε); about 1 at the edge of stability; absent before Adam's first step"
)


def stability(optimizer: Optimizer, *, top: float, preconditioned: Callable[[], float] | None) -> dict[str, float]:
    """How much curvature the optimizer bears, and how near to that it is; nothing where no bound is known.

    `top` is the Hessian's largest eigenvalue; Adam's steps see its `preconditioned` one, None before its first step. Parameter
    groups with several thresholds have no single one.
    """
    if not isinstance(optimizer, SGD | Adam):
        return {}
    thresholds = set(stability_thresholds(optimizer))
    if len(thresholds) > 1:
        return {}
    found = {"stability_threshold": thresholds.pop()}
    if isinstance(optimizer, Adam):
        if preconditioned is None:
            return found
        top = preconditioned()
    return found | {"sharpness_to_threshold": top / found["stability_threshold"]}


def preconditioned_sharpness(
    surface: LossSurface,
    hessian: HessianOperator,
    *,
    net: nn.Module,
    optimizer: Adam,
    tolerance: float,
    generator: torch.Generator,
) -> float:
    """The largest eigenvalue of the Hessian as Adam sees it; NaN where its moments are not finite."""
    diagonal = adam_preconditioner(surface, net, optimizer)
    if not (diagonal > 0).all() or not diagonal.isfinite().all():
        return math.nan
    scaled = PreconditionedOperator(hessian, diagonal)
    return eigenpairs(scaled, 1, tolerance=tolerance, generator=generator).values[0].item()
