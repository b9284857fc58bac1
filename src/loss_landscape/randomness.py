"""What a `generator=` argument may be, and random numbers that follow from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Generator

GeneratorLike = int | np.integer | Generator | None
GENERATORS = (Generator, np.random.Generator, np.random.RandomState, random.Random)
"""Sources of random numbers, each with a state."""


def generator_from(given: GeneratorLike) -> Generator:
    """`given` itself, a new generator seeded with it where it is a number, or one seeded with 0 where it is None.

    Raises TypeError for anything else, a bool included.
    """
    if isinstance(given, Generator):
        return given
    if isinstance(given, bool) or not (given is None or isinstance(given, int | np.integer)):
        raise TypeError(f"generator must be a torch.Generator, a seed (int) or None, got {type(given).__name__}")
    return Generator().manual_seed(int(given or 0))


def state_of(generator: Any) -> Any:
    """The state of one of GENERATORS, as a copy."""
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def restore_state(generator: Any, state: Any) -> None:
    """Put one of GENERATORS into a state that `state_of` gave."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        (generator.setstate if isinstance(generator, random.Random) else generator.set_state)(state)


@contextmanager
def seeded(seed: int, *devices: torch.device) -> Iterator[None]:
    """Inside, whatever torch (on the CPU and `devices`), NumPy and Python draw follows from `seed`; outside, all is as before."""
    python, numpy = random.getstate(), np.random.get_state()
    cuda = [device for device in devices if device.type == "cuda"]
    with torch.random.fork_rng(devices=cuda):
        try:
            torch.default_generator.manual_seed(seed)
            for device in cuda:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
