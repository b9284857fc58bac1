"""Labels of places: which units come there, as whole numbers that tensors can hold.

A label stands for a set of units whose values meet at a place, in a sum or a product; 0 stands for none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

Unit = tuple[int, int]
"""The number of the layer that makes it, and its place there."""

OTHERS: Unit = (-1, 0)
"""What is no unit: the net's input, a table's rows."""

NONE, OTHER = 0, 1


class Labels:
    """The sets that labels stand for."""

    def __init__(self) -> None:
        self.sets: list[frozenset[Unit]] = [frozenset(), frozenset([OTHERS])]
        self._known = {units: label for label, units in enumerate(self.sets)}
        self.statistics: dict[int, str] = {}  # labels of means and the like over units, with the operation's name

    def of(self, units: Iterable[Unit]) -> int:
        """The label of a set."""
        units = frozenset(units)
        if units not in self._known:
            self._known[units] = len(self.sets)
            self.sets.append(units)
        return self._known[units]

    def statistic(self, labels: Tensor, name: str) -> int:
        """A label of what is no unit but depends on all of these, as the mean over a layer that a norm divides by."""
        units = frozenset[Unit]().union(*(self.sets[label] for label in labels.unique().tolist()))
        for label, known in self.statistics.items():
            if known == name and self.sets[label] == units:
                return label
        self.sets.append(units)
        self.statistics[len(self.sets) - 1] = name
        return len(self.sets) - 1

    def both(self, one: int, other: int) -> int:
        """The label of the units of two; a statistic of some beside one of them is part of its norm."""
        for label, beside in ((one, other), (other, one)):
            if label in self.statistics and self.sets[beside] <= self.sets[label]:
                return beside if self.sets[beside] else label
        return self.of(self.sets[one] | self.sets[other])

    def met(self, one: Tensor, other: Tensor) -> Tensor:
        """The labels where two activations meet, broadcast as they are."""
        shape = torch.broadcast_shapes(one.shape, other.shape)
        pairs, places = (compact(one) * len(self.sets) + compact(other)).unique(return_inverse=True)
        parts = [divmod(pair, len(self.sets)) for pair in pairs.tolist()]
        return torch.tensor([self.both(a, b) for a, b in parts])[places].expand(shape)


def compact(tensor: Tensor) -> Tensor:
    """One place of each dimension along which a tensor was expanded."""
    return tensor[tuple(slice(0, 1) if step == 0 else slice(None) for step in tensor.stride())]


def varies(tensor: Tensor, dim: int) -> bool:
    """Whether entries differ along a dimension."""
    tensor = compact(tensor)
    return tensor.shape[dim] > 1 and bool((tensor != tensor.narrow(dim, 0, 1)).any())


def along(tensor: Tensor, dim: int) -> Tensor | None:
    """The entries along one dimension, [size]; None where they differ along another."""
    size, small = tensor.shape[dim], compact(tensor).movedim(dim, -1)
    rows = small.reshape(-1, small.shape[-1])
    return rows[0].expand(size) if bool((rows == rows[0]).all()) else None


def spread(entries: Tensor, dim: int, shape: Sequence[int]) -> Tensor:
    """Entries [size] along one dimension of a shape, repeated along all others."""
    sizes = [1] * len(shape)
    sizes[dim] = shape[dim]
    return entries.reshape(sizes).expand(tuple(shape))
