"""Batch norm whose gradient is right in every layout of what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

NORMS = {"batch_norm": False, "instance_norm": True}
"""Function of torch → whether it makes one example of all by itself."""


@contextmanager
def norms_in_any_layout() -> Iterator[None]:
    """A context in which the gradients of batch and instance norms do not hang on how their maps lie in memory.

    A dimension of length one, such as that of a single example, may have any stride, as after a transpose that makes maps of
    patches or patches of maps. On a CPU, torch's kernel for the gradient goes by it and takes the numbers of other places.
    """
    own = {name: getattr(torch, name) for name in NORMS}
    try:
        vars(torch).update({name: _in_order(norm, joins_examples=NORMS[name]) for name, norm in own.items()})
        yield
    finally:
        vars(torch).update(own)


def _in_order(norm: Callable[..., Tensor], *, joins_examples: bool) -> Callable[..., Tensor]:
    def normalized(input: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        ambiguous = 1 in input.shape
        made = norm(input.contiguous() if ambiguous else input, *arguments, **keywords)
        if made.requires_grad and (ambiguous or joins_examples):
            made.register_hook(Tensor.contiguous)
        return made

    return normalized
