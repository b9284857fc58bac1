"""Whether products are those of a symmetric matrix."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def asymmetry(product: Callable[[Tensor], Tensor], like: Tensor) -> tuple[float, float, float]:
    """uᵀHv and vᵀHu for random u, v, vectors `like` a given one [P], and the size of a product with an unrelated vector.

    `product` multiplies H with [P, 2].
    """
    draw = torch.Generator().manual_seed(0)
    pair = torch.randn(len(like), 2, generator=draw, dtype=torch.float64).to(like)
    images = product(pair).double()
    there, back = pair[:, 0].double() @ images[:, 1], pair[:, 1].double() @ images[:, 0]
    return float(there), float(back), float(images.norm() * pair.double().norm() / len(like) ** 0.5)
