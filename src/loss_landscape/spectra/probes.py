"""The random vectors that traces, diagonals and densities are estimated with."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from loss_landscape.operators.base import CurvatureOperator

Probes = Literal["rademacher", "normal"]
"""Random signs, which have the least variance, or normal numbers, whose direction is uniform on the sphere."""

BLOCK = 8  # columns held at a time; each probe is drawn by itself, so the draws do not depend on it


def require_known(probes: Probes) -> None:
    """Raise ValueError where there are no such probes."""
    if probes not in ("rademacher", "normal"):
        raise ValueError(f"probes must be 'rademacher' or 'normal', got {probes!r}")


def probe(operator: CurvatureOperator, probes: Probes, generator: torch.Generator) -> Tensor:
    """A vector [P] of independent entries with mean 0 and variance 1."""
    if probes == "normal":
        return normal(operator, generator).to(operator.device, operator.dtype)
    signs = torch.randint(0, 2, (operator.size,), generator=generator, device=generator.device) * 2 - 1
    return signs.to(operator.device, operator.dtype)


def probe_columns(operator: CurvatureOperator, count: int, probes: Probes, generator: torch.Generator) -> Tensor:
    """Such vectors [P, count]."""
    if not count:
        return torch.zeros(operator.size, 0, dtype=operator.dtype, device=operator.device)
    return torch.stack([probe(operator, probes, generator) for _ in range(count)], dim=1)


def spherical(operator: CurvatureOperator, generator: torch.Generator) -> Tensor:
    """A vector [P] of length √P in a random direction."""
    drawn = normal(operator, generator)
    return (drawn * (operator.size**0.5 / drawn.norm())).to(operator.device, operator.dtype)


def normal(operator: CurvatureOperator, generator: torch.Generator) -> Tensor:
    """Standard normal numbers [P], float64, where the generator is."""
    return torch.randn(operator.size, generator=generator, dtype=torch.float64, device=generator.device)


def unit_columns(operator: CurvatureOperator, first: int) -> Tensor:
    """The columns of the identity [P, ≤ 8] from `first` on."""
    columns = torch.zeros(operator.size, min(BLOCK, operator.size - first), dtype=operator.dtype, device=operator.device)
    rows = torch.arange(columns.shape[1], device=operator.device)
    columns[first + rows, rows] = 1
    return columns
