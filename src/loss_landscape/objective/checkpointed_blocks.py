"""Activation checkpoints as the plain calls that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils import checkpoint as torch_checkpoint

GENERATORS = ("_checkpoint_without_reentrant_generator", "_checkpoint_without_reentrant_generator_impl")
"""What torch's checkpoint runs around a block that it computes again in the backward pass; the names differ by version."""


@contextmanager
def plain_checkpoints() -> Iterator[None]:
    """A context in which torch.utils.checkpoint calls a block and keeps its activations.

    A checkpointed block runs once more in the backward pass, when a functional call has put the net's own parameters back: its
    gradients would be those of another net. One of the reentrant kind has no gradient by torch.autograd.grad at all.
    """
    plain: dict[str, Any] = {"CheckpointFunction": _PlainCall}
    plain |= {name: _nothing_around for name in GENERATORS if hasattr(torch_checkpoint, name)}
    own = {name: getattr(torch_checkpoint, name) for name in plain}
    try:
        vars(torch_checkpoint).update(plain)
        yield
    finally:
        vars(torch_checkpoint).update(own)


class _PlainCall:
    """In place of torch's reentrant checkpoint."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *arguments: Any) -> Any:
        return function(*arguments)


def _nothing_around(*_: Any, **__: Any) -> Iterator[None]:
    yield
