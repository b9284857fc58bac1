"""An orthonormal basis that grows without being copied."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 16  # rows that are allocated together
COLUMNS = 2**16  # columns that are rotated together


class Basis:
    """At most `most` orthonormal vectors, the rows of blocks [≤ 16, P]: growing copies nothing. Any device will do."""

    def __init__(self, rows: Tensor, device: torch.device, most: int):
        self.blocks, self.lengths, self.most = [rows.to(device)], [len(rows)], most

    def __len__(self) -> int:
        return sum(self.lengths)

    def __iter__(self) -> Iterator[Tensor]:
        """The rows in use, block by block."""
        return (block[:length] for block, length in zip(self.blocks, self.lengths, strict=True))

    @property
    def device(self) -> torch.device:
        return self.blocks[0].device

    @property
    def last(self) -> Tensor:
        """The newest row."""
        return self.blocks[-1][self.lengths[-1] - 1]

    def append(self, vector: Tensor) -> None:
        if len(self.blocks) == 1 or self.lengths[-1] == len(self.blocks[-1]):
            self.blocks.append(self.blocks[0].new_empty(min(BLOCK, self.most - len(self)), self.blocks[0].shape[1]))
            self.lengths.append(0)
        self.blocks[-1][self.lengths[-1]] = vector
        self.lengths[-1] += 1

    def without(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """`vector` without its part in the span of the rows, and its coefficients [m] there. Twice is enough (Parlett)."""
        coefficients = [block @ vector for block in self]
        for part, block in zip(coefficients, self, strict=True):
            vector = vector - part @ block
        return vector, torch.cat(coefficients)

    def combined(self, coefficients: Tensor) -> Tensor:
        """`coefficients` [k, m] of the rows after the first block, the vectors [k, P]."""
        parts = coefficients.to(self.blocks[0]).split(self.lengths[1:], dim=1)
        return sum((part @ block for part, block in zip(parts, list(self)[1:], strict=True)))

    def rotate(self, coefficients: Tensor) -> None:
        """Put the combinations [k, m] in the place of the rows after the first block, using next to no memory."""
        kept, size = len(coefficients), self.blocks[0].shape[1]
        coefficients = coefficients.to(self.blocks[0])
        old = list(self)[1:]
        full, rest = divmod(kept, len(self.blocks[1]))
        self.lengths = [self.lengths[0], *[len(self.blocks[1])] * full, *([rest] if rest else [])]
        self.blocks = self.blocks[: len(self.lengths)]
        for first in range(0, size, COLUMNS):
            columns = slice(first, first + COLUMNS)
            rotated = coefficients @ torch.cat([block[:, columns] for block in old])
            for block, part in zip(list(self)[1:], rotated.split(self.lengths[1:]), strict=True):
                block[:, columns] = part

    def move(self, device: torch.device) -> None:
        self.blocks = [block.to(device) for block in self.blocks]
