"""Whether products are those of a symmetric matrix."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from loss_landscape.surface.slopes import random_vectors


def asymmetry(product: Callable[[Tensor], Tensor], like: Tensor) -> tuple[float, float, float]:
    """uᵀHv and vᵀHu for random u, v, vectors `like` a given one [P], and the size of a product with an unrelated vector.

    `product` multiplies H with [P, 2].
    """
    pair = random_vectors(like, 2)
    return asymmetry_of(pair, product(pair))


def asymmetry_of(pair: Tensor, images: Tensor) -> tuple[float, float, float]:
    """The same of the products `images` [P, 2] with a `pair` [P, 2] of vectors."""
    images = images.double()
    there, back = pair[:, 0].double() @ images[:, 1], pair[:, 1].double() @ images[:, 0]
    return float(there), float(back), float(images.norm() * pair.double().norm() / len(pair) ** 0.5)
