"""What a `generator=` argument may be."""

from __future__ import annotations

import numpy as np
from torch import Generator

GeneratorLike = int | np.integer | Generator | None


def generator_from(given: GeneratorLike) -> Generator:
    """`given` itself, a new generator seeded with it where it is a number, or one seeded with 0 where it is None.

    Raises TypeError for anything else, a bool included.
    """
    if isinstance(given, Generator):
        return given
    if isinstance(given, bool) or not (given is None or isinstance(given, int | np.integer)):
        raise TypeError(f"generator must be a torch.Generator, a seed (int) or None, got {type(given).__name__}")
    return Generator().manual_seed(int(given or 0))
