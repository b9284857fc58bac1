"""Where along a net's depth rank is lost, from the ranks r₀, r₁, … r_{L-1} of its layers' features, input side first.

The drops themselves are of any ranks that follow one another: one layer's over time as well.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from taskshift.metrics.gini import gini


def relative_drops(ranks: Tensor) -> Tensor:
    """(rᵢ₋₁ - rᵢ) / rᵢ₋₁ for i = 1 … L-1: the share of its rank that each step loses, negative for a rise; 0 from rank 0."""
    before, after = ranks[:-1], ranks[1:]
    return torch.where(before == 0, torch.zeros_like(before), (before - after) / before)


def drops(ranks: Tensor) -> Tensor:
    """The share of its rank that each step loses, dᵢ = max(0, (rᵢ₋₁ - rᵢ) / rᵢ₋₁) for i = 1 … L-1; a rise is no drop."""
    return relative_drops(ranks).clamp_min(0)


def drop_gini(ranks: Tensor) -> float:
    """How unequally the drops are shared among the steps: 0 all alike (or none), (L - 2) / (L - 1) all in one step."""
    return gini(drops(ranks))


def drop_centroid(ranks: Tensor) -> float:
    """Σ i dᵢ / Σ dᵢ, the mean position of the drops: 1 all at the first step, L - 1 all at the last; NaN where nothing drops."""
    lost = drops(ranks)
    if lost.sum() == 0:
        return math.nan
    positions = torch.arange(1, len(lost) + 1, dtype=lost.dtype, device=lost.device)
    return ((positions * lost).sum() / lost.sum()).item()


def aurc(ranks: Tensor) -> float:
    """The area under the rank curve (trapezoids) over r₀ · (L - 1): 1 where rank is kept; NaN for r₀ = 0 or L = 1."""
    if len(ranks) < 2 or ranks[0] == 0:
        return math.nan
    return (torch.trapezoid(ranks) / (ranks[0] * (len(ranks) - 1))).item()
