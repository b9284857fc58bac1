"""The user's random numbers, kept as they were, and those of a loader."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from loss_landscape.randomness import seeded


@contextlib.contextmanager
def seeded_with_loader(seed: int, loader: Any = None) -> Iterator[None]:
    """Inside, whatever is drawn follows from `seed`, by the loader's own generator too; outside, all are as they were."""
    own = loader.generator if isinstance(loader, DataLoader) else None
    state = None if own is None else own.get_state()
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with seeded(seed, *(torch.device("cuda", index) for index in cuda)):
        try:
            if own is not None:
                own.manual_seed(seed)
            yield
        finally:
            if own is not None:
                own.set_state(state)
