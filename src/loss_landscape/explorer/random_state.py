"""The user's random numbers, kept as they were: torch's, NumPy's and Python's."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader


@contextlib.contextmanager
def seeded(seed: int, loader: Any = None) -> Iterator[None]:
    """Inside, whatever is drawn follows from `seed`, by the loader's own generator too; outside, all are as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    own = loader.generator if isinstance(loader, DataLoader) else None
    state = None if own is None else own.get_state()
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=cuda):
        try:
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            if own is not None:
                own.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            if own is not None:
                own.set_state(state)
