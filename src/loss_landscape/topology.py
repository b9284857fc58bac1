"""The shape of a grid's basins: which minima it has, how deep they are, and where they join."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from loss_landscape.results.grid import Grid
from loss_landscape.results.result import Result, table

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False, repr=False)
class MergeTree(Result):
    """How the components of {cells with a loss ≤ h} are born and join as h rises, a row for each component.

    Sorted by birth, so that a component joins one in an earlier row: the elder, of the lower minimum, lives on (the elder rule).
    What never joins, the global minimum's component among them, dies at infinity; where masked cells cut the grid apart, each
    part has one such. Components without persistence, which die at the height they are born at, are no minima and left out.

    `births` [m], float64, ascending, are the losses at the minima, whose cells are `minima` [m, D], int. `deaths` [m] are the
    losses at the saddles, inf where there is none, whose cells are `saddles` [m, D], −1 where there is none. `elders` [m], int,
    are the rows that the components join there, −1 where none.

    >>> tree = merge_tree([3.0, 0.0, 2.0, 1.0, 4.0])
    >>> tree
    MergeTree(2 minima, the lowest 0, total persistence 1)
    >>> tree.saddle_heights, tree.minima[:, 0]
    (array([2.]), array([1, 3]))
    """

    births: np.ndarray
    deaths: np.ndarray
    minima: np.ndarray
    saddles: np.ndarray
    elders: np.ndarray

    @property
    def persistence(self) -> np.ndarray:
        """How far each component's saddle is above its minimum, [m]."""
        return self.deaths - self.births

    @property
    def barcode(self) -> np.ndarray:
        """(birth, death) of each component, [m, 2]."""
        return np.stack([self.births, self.deaths], axis=1)

    @property
    def saddle_heights(self) -> np.ndarray:
        """The losses at which two components join, ascending."""
        return np.sort(self.deaths[np.isfinite(self.deaths)])

    @property
    def total_persistence(self) -> float:
        """The sum of the finite bars' lengths: 0 where every part of the grid is a single basin."""
        return float(self.persistence[np.isfinite(self.deaths)].sum())

    def num_minima(self, above: float = 0.0) -> int:
        """The number of minima with a persistence above `above`, those of infinite persistence among them."""
        return int((self.persistence > above).sum())

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The fields by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> MergeTree:
        """The tree of which `to_arrays` made these `arrays`."""
        return cls(*(arrays[each.name] for each in fields(cls)))

    def to_pandas(self) -> DataFrame:
        """A row a component: `birth`, `death`, `persistence`, `elder`, its cells as `minimum_i`, `saddle_i`, and so for j, k."""
        cells = {f"{name}_{letter}": column for name in ("minimum", "saddle") for letter, column in self._columns(name)}
        return table({"birth": self.births, "death": self.deaths, "persistence": self.persistence, "elder": self.elders, **cells})

    def _columns(self, name: str) -> list[tuple[str, np.ndarray]]:
        """The cells of the minima or saddles, a column for each axis of the grid with its letter."""
        return list(zip("ijk", (self.minima if name == "minimum" else self.saddles).T, strict=False))

    def __repr__(self) -> str:
        if not len(self.births):
            return "MergeTree(no minima: no cell is finite)"
        facts = f"the lowest {self.births[0]:.4g}, total persistence {self.total_persistence:.4g}"
        return f"MergeTree({len(self.births)} {'minimum' if len(self.births) == 1 else 'minima'}, {facts})"

    @cached_property
    def places(self) -> np.ndarray:
        """Where to draw each component from left to right, [m], a permutation of 0 … m − 1 for which no two lines cross.

        A component is an upright line from its birth to its death, and a level one at its death to the place of its elder.
        """
        joining: dict[int, list[int]] = {}
        for row in np.argsort(self.deaths, kind="stable")[::-1].tolist():  # the first to join is next to its elder
            joining.setdefault(int(self.elders[row]), []).append(row)
        order, waiting = [], joining.get(-1, [])
        while waiting:
            order.append(waiting.pop())
            waiting.extend(joining.get(order[-1], []))
        return np.argsort(np.array(order, dtype=int))


def merge_tree(losses: np.ndarray | Grid, *, diagonals: bool = True) -> MergeTree:
    """The merge tree of the sublevel sets of `losses`: a Grid, or an array, of a line, a plane or a volume.

    Neighbours are the cells that share a corner (8 in a plane, 26 in a volume), without `diagonals` a face (4 and 6): a valley
    that runs askew falls apart without them. Equal losses are taken in the order of their cells, so that the tree is exact. Cells
    that are not finite are no part of it: a grid of none but these has a tree without minima. By union–find over the cells in
    ascending order, O(n log n). Raises ValueError for other numbers of dimensions, and TypeError for what holds no numbers.

    >>> merge_tree([0.0, 2.0, 1.0]).barcode
    array([[ 0., inf],
           [ 1.,  2.]])
    """
    values = _values(losses)
    if not 1 <= values.ndim <= 3:
        raise ValueError(f"expected the losses of a line, a plane or a volume, got an array of {values.ndim} dimensions")
    finite = np.isfinite(values)
    order = np.argsort(np.where(finite, values, np.inf), axis=None, kind="stable")[: finite.sum()]  # the cell of each rank
    rank = np.full(values.shape, -1)
    rank.flat[order] = np.arange(len(order))
    return _tree(values, order, *_merges(_pairs_of_neighbours(rank, diagonals), len(order)))


def persistence_barcode(losses: np.ndarray | Grid, *, diagonals: bool = True) -> np.ndarray:
    """The 0-dimensional persistence of the sublevel sets: (birth, death) of each minimum, [m, 2].

    `losses` and `diagonals` are `merge_tree`'s.

    >>> persistence_barcode([0.0, 2.0, 1.0])
    array([[ 0., inf],
           [ 1.,  2.]])
    """
    return merge_tree(losses, diagonals=diagonals).barcode


def bottleneck_distance(first: np.ndarray | MergeTree, second: np.ndarray | MergeTree) -> float:
    """The smallest h such that bars [m, 2] can be paired whose ends differ by h at most, all others being no longer than 2h.

    `first` and `second` are barcodes, [m, 2] and [n, 2], or merge trees. Infinite bars pair among themselves: the distance is
    infinite where their numbers differ. By a binary search over the possible distances with a bipartite matching at each (Efrat,
    Itai & Katz 2001); memory grows as the product of the numbers of bars.
    Raises ValueError for what are no bars.

    >>> bottleneck_distance(merge_tree([0.0, 2.0, 1.0]), merge_tree([0.0, 2.5, 1.0]))
    0.5
    """
    one, other = _bars(first), _bars(second)
    endless = [np.sort(bars[np.isinf(bars[:, 1]), 0]) for bars in (one, other)]
    if len(endless[0]) != len(endless[1]):
        return math.inf
    apart = float(np.abs(endless[0] - endless[1]).max(initial=0.0))
    return max(apart, _finite_distance(*(bars[np.isfinite(bars[:, 1])] for bars in (one, other))))


def _values(losses: object) -> np.ndarray:
    """The losses of a grid or an array, float64."""
    if isinstance(losses, Grid):
        return losses.losses
    try:
        return np.asarray(losses, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"expected a Grid or an array of losses, got {type(losses).__name__}") from error


def _pairs_of_neighbours(rank: np.ndarray, diagonals: bool) -> np.ndarray:
    """The (higher, lower) ranks of all neighbours, [E, 2]; cells of rank −1 have none."""
    steps = [step for step in itertools.product((-1, 0, 1), repeat=rank.ndim) if step > (0,) * rank.ndim]
    parts = []
    for step in steps if diagonals else [step for step in steps if np.abs(step).sum() == 1]:
        here, there = _moved(rank, [-s for s in step]).ravel(), _moved(rank, step).ravel()
        parts.append(np.stack([np.maximum(here, there), np.minimum(here, there)], axis=1))
    pairs = np.concatenate(parts)
    return pairs[pairs[:, 1] >= 0]


def _moved(cells: np.ndarray, step: Sequence[int]) -> np.ndarray:
    return cells[tuple(slice(max(0, s), n + min(0, s)) for s, n in zip(step, cells.shape, strict=True))]


def _merges(pairs: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The ranks of the minima, ascending, [k], and (minimum, saddle, the elder's minimum) of those that join one, [≤ k, 3].

    A component goes by the rank of its minimum. A cell above others is one with the lowest of them from its birth, so that only
    the passes between such basins are left to join.
    """
    basin = np.arange(count)
    np.minimum.at(basin, pairs[:, 0], pairs[:, 1])
    while (basin[basin] != basin).any():
        basin = basin[basin]
    root, merges = basin.tolist(), []
    for saddle, *sides in _passes(pairs[:, 0], basin[pairs], count).tolist():
        elder, younger = sorted(_root(root, side) for side in sides)
        if elder != younger:
            root[younger] = elder
            merges.append((younger, saddle, elder))
    return np.flatnonzero(basin == np.arange(count)), np.array(merges, dtype=int).reshape(-1, 3)


def _passes(heights: np.ndarray, sides: np.ndarray, count: int) -> np.ndarray:
    """(rank, basin, basin) of the lowest pair of neighbours between each two basins, ascending."""
    between = sides[:, 0] != sides[:, 1]
    ascending = np.argsort(heights[between], kind="stable")
    heights, sides = heights[between][ascending], np.sort(sides[between][ascending], axis=1)
    _, lowest = np.unique(sides @ (count, 1), return_index=True)
    return np.column_stack([heights, sides])[np.sort(lowest)]


def _root(parent: list[int], item: int) -> int:
    while parent[item] != item:
        parent[item] = item = parent[parent[item]]  # halves the way of the next search
    return item


def _tree(values: np.ndarray, order: np.ndarray, minima: np.ndarray, merges: np.ndarray) -> MergeTree:
    """The tree of those `minima` that persist; `order` is the cell of each rank."""
    saddles, elders = np.full((2, len(order)), -1)
    saddles[merges[:, 0]], elders[merges[:, 0]] = merges[:, 1], merges[:, 2]
    heights = np.append(values.ravel()[order], np.inf)  # by rank; the last one is that of rank −1
    minima = minima[heights[minima] < heights[saddles[minima]]]
    saddles, elders = saddles[minima], elders[minima]
    cells = np.append(np.stack(np.unravel_index(order, values.shape), axis=1), np.full((1, values.ndim), -1), axis=0)
    rows = np.where(elders < 0, -1, np.searchsorted(minima, elders))
    return MergeTree(heights[minima], heights[saddles], cells[minima], cells[saddles], rows)


def _bars(given: np.ndarray | MergeTree) -> np.ndarray:
    bars = given.barcode if isinstance(given, MergeTree) else np.asarray(given, dtype=np.float64)
    if bars.ndim != 2 or bars.shape[1] != 2 or not (bars[:, 0] <= bars[:, 1]).all() or not np.isfinite(bars[:, 0]).all():
        raise ValueError(
            f"expected bars [m, 2] of (birth, death) with finite births ≤ deaths, got {list(bars.shape)}, the first of them "
            f"{bars[:2].tolist()}; see persistence_barcode"
        )
    return bars


def _finite_distance(first: np.ndarray, second: np.ndarray) -> float:
    apart = np.abs(first[:, None] - second[None]).max(axis=2)  # [m, n]
    one, other = ((bars[:, 1] - bars[:, 0]) / 2 for bars in (first, second))
    possible = np.unique(np.concatenate([[0.0], apart.ravel(), one, other]))
    return float(possible[bisect.bisect_left(possible, True, key=lambda height: _can_pair(apart, one, other, height))])


def _can_pair(apart: np.ndarray, first: np.ndarray, second: np.ndarray, height: float) -> bool:
    """Whether all bars too long to stand alone find a partner within `height`.

    Each side's long bars may be asked on their own: where a matching covers the ones, and another the others, one covers both
    (Mendelsohn & Dulmage 1958).
    """
    close = apart <= height
    return _covers(close[first > height]) and _covers(close.T[second > height])


def _covers(close: np.ndarray) -> bool:
    """Whether every row of `close` [m, n] can have a column of its own."""
    from scipy.sparse import csr_array  # half a second to import
    from scipy.sparse.csgraph import maximum_bipartite_matching

    return bool((maximum_bipartite_matching(csr_array(close), perm_type="column") >= 0).all())
