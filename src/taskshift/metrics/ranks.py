"""How many dimensions a layer's features use: five measures, each from the singular values σ₁ ≥ σ₂ ≥ … of the feature matrix.

The matrix Φ [n, d] has one row an example and is not centred. A matrix of zeros has rank 0 by every measure; one with a NaN or
an infinity has rank NaN.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Measure = Literal["approximate", "effective", "l1", "numerical", "stable"]
"""Those below, each called `<measure>_rank`."""

SLACK = 1e-12  # of a sum: what float64 may lose of it, so that a tie counts as reached


def singular_values(features: Tensor) -> Tensor:
    """All min(n, d) singular values of `features` [n, d], largest first, float64.

    From the Gram matrix of the smaller side, by an exact decomposition, never a randomised one; below 1e-8 σ₁ it is rounding.
    """
    phi = features.double()
    if phi.shape[0] > phi.shape[1]:
        phi = phi.T
    scale = phi.abs().max() if phi.numel() else phi.new_zeros(())
    if not torch.isfinite(scale):
        return phi.new_full((min(phi.shape),), math.nan)
    if scale == 0:
        return phi.new_zeros(min(phi.shape))
    unit = phi / scale  # so that squares neither overflow nor vanish
    return torch.linalg.eigvalsh(unit @ unit.T).clamp_min(0).sqrt().flip(0) * scale


def effective_rank(sigma: Tensor) -> float:
    """exp(-Σ p ln p) with p = σ / Σσ (Roy & Vetterli 2007)."""
    if sigma.sum() == 0:
        return 0.0
    p = sigma / sigma.sum()
    return torch.special.entr(p).sum().exp().item()


def approximate_rank(sigma: Tensor, prop: float = 0.99) -> float:
    """The smallest k with Σ_{i≤k} σᵢ² ≥ prop · Σσ² (Yang et al. 2019, arXiv 1909.12255)."""
    return _num_for_share(sigma.square(), prop)


def l1_rank(sigma: Tensor, prop: float = 0.99) -> float:
    """The smallest k with Σ_{i≤k} σᵢ ≥ prop · Σσ; srank_δ of Kumar et al. 2021 for δ = 1 - prop, often called "stable rank"."""
    return _num_for_share(sigma, prop)


def numerical_rank(sigma: Tensor, epsilon: float = 0.01) -> float:
    """How many σᵢ ≥ epsilon · σ₁."""
    if sigma.isnan().any():
        return math.nan
    return float((sigma >= epsilon * sigma[:1]).logical_and(sigma > 0).sum())


def stable_rank(sigma: Tensor) -> float:
    """Σσ² / σ₁² = ‖Φ‖²_F / ‖Φ‖²₂ (Rudelson & Vershynin 2007)."""
    if sigma.sum() == 0:
        return 0.0
    return (sigma / sigma[0]).square().sum().item()


def _num_for_share(parts: Tensor, prop: float) -> float:
    """The smallest number of `parts` [n], largest first, whose sum is at least `prop` of the whole."""
    running = parts.cumsum(0)
    if running.isnan().any():
        return math.nan
    if not len(running) or running[-1] == 0:
        return 0.0
    return 1.0 + float((running < prop * running[-1] * (1 - SLACK)).sum())
