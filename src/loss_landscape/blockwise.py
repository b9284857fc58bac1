"""Sums in float64 over long vectors, a block of entries at a time: a copy of the whole would take twice the vector's memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from torch import Tensor

BLOCK = 1 << 21  # entries: 16 MiB in float64. A vector up to this length is summed in one go

Block = Callable[[slice], Tensor]
"""A block of a vector, in float64."""


def blocks(size: int) -> Iterator[slice]:
    """The entries of a vector of this length, block by block; a block and what is left of the last one have 16 at least."""
    starts = range(0, max(size - 15, 1), BLOCK)
    return (slice(start, start + BLOCK if start != starts[-1] else size) for start in starts)


def norm(vector: Tensor) -> float:
    """The length of a vector [P]."""
    return norm_of(len(vector), lambda block: vector[block].double())


def sum_of_squares(vector: Tensor) -> float:
    """The square of its length."""
    return sum(float(vector[block].double().square().sum()) for block in blocks(len(vector)))


def norm_of(size: int, part: Block) -> float:
    """The length of a vector that is made block by block."""
    return math.hypot(*(float(part(block).norm()) for block in blocks(size)))


def product_of(size: int, first: Block, second: Block) -> float:
    """The inner product of two such vectors."""
    return sum(float(first(block) @ second(block)) for block in blocks(size))
