"""Dimensions of tensors as products of factors, some of which may be put into another order without anyone noticing.

Two factors that meet, say a layer's outputs and the next one's inputs, become one: they can only be reordered together. A factor
that something looks at by its place, such as the net's outputs, is fixed.
"""

from __future__ import annotations

from collections.abc import Sequence

Axis = tuple["Factor", ...]
"""A dimension: the factors of its size, outermost first; none where it is 1."""

Axes = tuple[Axis, ...]
"""A tensor: an axis for each dimension."""


class Factor:
    """`size` places; what they are now is `leaves` of it."""

    def __init__(self, size: int, fixed: str = ""):
        self.size = size
        self.fixed = fixed  # why it must stay in its order; empty: it need not
        self._now: Axis | None = None  # the one that it was united with, or the parts that it was split into

    def leaves(self) -> Axis:
        """The factors that it has become."""
        return (self,) if self._now is None else leaves(self._now)

    def become(self, now: Axis) -> None:
        self._now = now


def axis_of(size: int, fixed: str = "") -> Axis:
    """A new dimension."""
    return () if size == 1 else (Factor(size, fixed),)


def axes_of(shape: Sequence[int], fixed: str = "") -> Axes:
    """A new tensor's dimensions."""
    return tuple(axis_of(size, fixed) for size in shape)


def leaves(axis: Axis) -> Axis:
    """What a dimension's factors have become."""
    return tuple(leaf for factor in axis for leaf in factor.leaves())


def fix(axis: Axis, why: str) -> None:
    """Let a dimension stay in its order."""
    for leaf in leaves(axis):
        leaf.fixed = leaf.fixed or why


def unite(first: Axis, second: Axis) -> None:
    """Let two dimensions of one size be reordered only together."""
    first, second = leaves(first), leaves(second)
    while first and second:
        one, other = first[0], second[0]
        if one.size == other.size:
            _merge(one, other)
            first, second = leaves(first[1:]), leaves(second[1:])
            continue
        large, small = (one, other) if one.size > other.size else (other, one)
        if large.size % small.size:
            fix(first, "sizes that do not fit together")
            fix(second, "sizes that do not fit together")
            return
        split(large, small.size)
        first, second = leaves(first), leaves(second)


def split(factor: Factor, outer: int) -> None:
    """Part a factor into `outer` blocks: they can be reordered, and, in all alike, their places."""
    factor.become((Factor(outer, factor.fixed), Factor(factor.size // outer, factor.fixed)))


def regrouped(axes: Axes, shape: Sequence[int]) -> Axes:
    """The dimensions of the same numbers in the same order seen as another shape."""
    rest, found = leaves(tuple(factor for axis in axes for factor in axis)), []
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
            split(head, size)
            rest = leaves(rest)
            continue
        if size % head.size:
            return None, rest
        taken, rest, size = (*taken, head), rest[1:], size // head.size
    return taken, rest


def _merge(one: Factor, other: Factor) -> None:
    if one is not other:
        one.fixed = one.fixed or other.fixed
        other.become((one,))
