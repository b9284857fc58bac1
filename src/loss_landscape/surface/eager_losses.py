"""Losses by the net itself, point by point: what every faster way is held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from loss_landscape.objective.layout import ParameterLayout
from loss_landscape.objective.objective import Objective


def losses_at(objective: Objective, layout: ParameterLayout, points: Sequence[Callable[[], Tensor]]) -> Tensor:
    """The losses [K], float64 where the device has it, at points [P] that are made when they are needed."""
    dtype = torch.float32 if objective.device.type == "mps" else torch.float64
    total = torch.zeros(len(points), dtype=dtype, device=objective.device)
    if objective.batch_norm == "recompute":
        for index, point in enumerate(points):
            total[index] = objective.loss(layout.unflatten(point()))
        return total
    for weight, term in objective.terms():
        losses = [term(layout.unflatten(point())).detach() for point in points]
        total += weight * (torch.stack(losses).to(total) if losses else total)
    return total


def gradient_at(objective: Objective, layout: ParameterLayout, point: Tensor) -> Tensor:
    """The gradient [P] at a point [P]."""
    leaves = {name: t.requires_grad_() for name, t in layout.unflatten(point.detach().clone()).items()}
    return layout.flatten(objective.gradient(leaves))


def checked_rho(rho: float) -> float:
    """`rho` itself; ValueError unless it is finite and ≥ 0."""
    if not 0 <= rho < float("inf"):
        raise ValueError(f"rho must be finite and ≥ 0, got {rho}")
    return rho


def ascended_point(objective: Objective, layout: ParameterLayout, point: Tensor, rho: float) -> Tensor:
    """The point one step of length ρ up the gradient; the point itself where that is 0."""
    slope = gradient_at(objective, layout, point)
    length = torch.linalg.vector_norm(slope)
    return point + torch.where(length > 0, rho / length, 0) * slope
