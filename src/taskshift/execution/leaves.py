"""Nested dicts of tensors as a list, in one order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Nested = Mapping[str, Any]
"""Nested dicts of tensors."""


def leaves(node: Any, like: Any) -> list[Tensor]:
    """The tensors of `node`, in the order of `like`, a nest with the same keys."""
    if isinstance(like, Mapping):
        return [tensor for key, below in like.items() for tensor in leaves(node[key], below)]
    return [node]


def nested(tensors: Sequence[Tensor], like: Any) -> Any:
    """The nest of the form of `like` whose `leaves` are these tensors."""
    left = iter(tensors)

    def build(below: Any) -> Any:
        return {key: build(value) for key, value in below.items()} if isinstance(below, Mapping) else next(left)

    return build(like)


class FixedTensors:
    """A nest whose tensors stay where they are, each in memory of its own: programs read them and write them in place."""

    def __init__(self, tensors: Sequence[Tensor], like: Nested):
        """These tensors themselves, in the order of the leaves of `like`."""
        self.tensors, self.nest = list(tensors), nested(tensors, like)
        self._own = {tensor.untyped_storage().data_ptr() for tensor in tensors}

    @classmethod
    def copied(cls, like: Nested) -> FixedTensors:
        """Copies of the tensors of `like`."""
        return cls([tensor.clone(memory_format=torch.contiguous_format) for tensor in leaves(like, like)], like)

    def take(self, nest: Nested) -> None:
        """Copy the values of another nest, which may hold some of these tensors, also in other places."""
        if all(nest[key] is below for key, below in self.nest.items()):  # as it was given out, step after step
            return
        pairs = [(own, given) for own, given in zip(self.tensors, leaves(nest, self.nest), strict=True) if own is not given]
        values = [given.clone() if given.untyped_storage().data_ptr() in self._own else given for _, given in pairs]
        for (own, _), value in zip(pairs, values, strict=True):
            own.copy_(value)


def copies(like: Tensor, size: int, *, innermost: bool) -> Tensor:
    """`size` copies of a tensor, [size, …]; `innermost`: those of one entry lie side by side in memory."""
    if innermost:
        return like.unsqueeze(-1).repeat(*[1] * like.dim(), size).movedim(-1, 0)
    return like.unsqueeze(0).repeat(size, *[1] * like.dim())


def over_steps(each: Tensor, length: int, *, innermost: bool) -> Tensor:
    """`length` copies of a tensor of copies, [length, size, …], each lying in memory as `copies` lie."""
    if innermost:
        memory = each.movedim(0, -1)
        return memory.unsqueeze(0).repeat(length, *[1] * memory.dim()).movedim(-1, 1)
    return each.unsqueeze(0).repeat(length, *[1] * each.dim())
