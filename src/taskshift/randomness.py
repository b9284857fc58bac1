"""Random generators named by what they are for, so that nothing depends on the order in which things happen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_from(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part, the same on every machine and in every process."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` that starts from `seed_from(*parts)`."""
    return torch.Generator(device=device).manual_seed(seed_from(*parts))


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Let what is drawn inside from torch's default generators, of the CPU and of `device`, leave no trace."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
