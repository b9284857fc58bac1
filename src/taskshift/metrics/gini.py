"""How unequally a total is shared."""

from __future__ import annotations

import torch
from torch import Tensor


def gini(values: Tensor) -> float:
    """The Gini coefficient of non-negative `values` [n]: 0 when all are equal, (n - 1) / n when one has everything.

    Σᵢ (2i - n - 1) x₍ᵢ₎ / (n Σᵢ xᵢ) with x sorted upwards and i from 1. Nothing to share (all zero, or no values) is 0;
    a NaN or an infinity among the values gives NaN.
    """
    if (values < 0).any():
        raise ValueError(
            f"a Gini coefficient is defined for values >= 0, but the smallest here is {values.min().item():g}; "
            "clip or shift them first"
        )
    x = values.double().sort().values
    total, n = x.sum(), len(x)
    if n == 0 or total == 0:
        return 0.0
    order = torch.arange(1, n + 1, dtype=x.dtype, device=x.device)
    return (((2 * order - n - 1) * (x / total)).sum() / n).item()
