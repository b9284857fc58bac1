"""Dimensions of tensors as products of factors, each of which may be permuted or must stay in its order.

Two factors that meet, say a layer's outputs and the next one's inputs, are merged: they can only be permuted together. A factor
whose places differ in meaning, such as the net's outputs, is fixed. As in a union–find structure, a factor resolves to what it
was merged with or factorized into.
"""

from __future__ import annotations

from collections.abc import Sequence

Axis = tuple["Factor", ...]
"""A dimension: the factors of its size, outermost first; none where it is 1."""

Axes = tuple[Axis, ...]
"""A tensor: an axis for each dimension."""


class Factor:
    """`size` places of a dimension; `resolved` gives the factors that they have become."""

    def __init__(self, size: int, fixed: str = ""):
        self.size = size
        self.fixed = fixed  # why it must stay in its order; empty: it need not
        self._resolution: Axis | None = None  # the one that it was merged with, or those that it was factorized into

    def resolved(self) -> Axis:
        """The factors that it has become."""
        return (self,) if self._resolution is None else resolved(self._resolution)

    def resolve_to(self, axis: Axis) -> None:
        """Let it stand for the factors of `axis` from now on."""
        self._resolution = axis


def axis_of(size: int, fixed: str = "") -> Axis:
    """A new dimension."""
    return () if size == 1 else (Factor(size, fixed),)


def axes_of(shape: Sequence[int], fixed: str = "") -> Axes:
    """A new tensor's dimensions."""
    return tuple(axis_of(size, fixed) for size in shape)


def resolved(axis: Axis) -> Axis:
    """What a dimension's factors have become."""
    return tuple(part for factor in axis for part in factor.resolved())


def fix(axis: Axis, why: str) -> None:
    """Let a dimension stay in its order."""
    for factor in resolved(axis):
        factor.fixed = factor.fixed or why


def merge(first: Axis, second: Axis) -> None:
    """Let two dimensions of one size be reordered only together."""
    first, second = resolved(first), resolved(second)
    while first and second:
        one, other = first[0], second[0]
        if one.size == other.size:
            _merge_factors(one, other)
            first, second = resolved(first[1:]), resolved(second[1:])
            continue
        large, small = (one, other) if one.size > other.size else (other, one)
        if large.size % small.size:
            fix(first, "sizes that do not fit together")
            fix(second, "sizes that do not fit together")
            return
        factorize(large, small.size)
        first, second = resolved(first), resolved(second)


def factorize(factor: Factor, outer: int) -> None:
    """Write a factor as a product, `outer` blocks of size / outer: blocks can be permuted, and, in all alike, their places."""
    factor.resolve_to((Factor(outer, factor.fixed), Factor(factor.size // outer, factor.fixed)))


def regrouped(axes: Axes, shape: Sequence[int]) -> Axes:
    """The dimensions of the same numbers in the same order seen as another shape."""
    rest, found = resolved(tuple(factor for axis in axes for factor in axis)), []
    for size in shape:
        taken, rest = _taken(rest, size)
        if taken is None:
            fix(tuple(factor for axis in axes for factor in axis), "a reshape across its units")
            return axes_of(shape, "a reshape across its units")
        found.append(taken)
    return tuple(found)


def _taken(rest: Axis, size: int) -> tuple[Axis | None, Axis]:
    """The outermost factors that make up `size`, and the others; None where a factor would have to be cut unevenly."""
    taken: Axis = ()
    while size > 1:
        head = rest[0]
        if head.size > size:
            if head.size % size:
                return None, rest
            factorize(head, size)
            rest = resolved(rest)
            continue
        if size % head.size:
            return None, rest
        taken, rest, size = (*taken, head), rest[1:], size // head.size
    return taken, rest


def _merge_factors(one: Factor, other: Factor) -> None:
    if one is not other:
        one.fixed = one.fixed or other.fixed
        other.resolve_to((one,))
