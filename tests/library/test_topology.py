from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import ndimage

from loss_landscape import Grid
from loss_landscape.topology import MergeTree, bottleneck_distance, merge_tree, persistence_barcode


def labels(losses: np.ndarray, diagonals: bool, height: float, strictly: bool = False) -> np.ndarray:
    """The components of the cells up to `height`, numbered from 1, 0 elsewhere."""
    inside = np.isfinite(losses) & ((losses < height) if strictly else (losses <= height))
    reach = losses.ndim if diagonals else 1
    return ndimage.label(inside, ndimage.generate_binary_structure(losses.ndim, reach))[0]


def counted_barcode(losses: np.ndarray, diagonals: bool) -> np.ndarray:
    """The bars from the ranks of the maps between the sublevel sets at every two heights, counted, by inclusion–exclusion."""
    heights = np.unique(losses[np.isfinite(losses)])
    components = [labels(losses, diagonals, height) for height in heights]

    def rank(low: int, high: int) -> int:  # components at `high` that hold one of `low`
        return len(np.unique(components[high][components[low] > 0])) if low >= 0 else 0

    bars = []
    for birth in range(len(heights)):
        for death in range(birth + 1, len(heights)):
            count = rank(birth, death - 1) - rank(birth, death) - rank(birth - 1, death - 1) + rank(birth - 1, death)
            bars += [(heights[birth], heights[death])] * count
        last = len(heights) - 1
        bars += [(heights[birth], math.inf)] * (rank(birth, last) - rank(birth - 1, last))
    return np.array(bars).reshape(-1, 2)


def in_order(bars: np.ndarray) -> np.ndarray:
    return bars[np.lexsort(bars.T)]


def drawn(shape: tuple[int, ...], seed: int, distinct: int) -> np.ndarray:
    """Losses with ties, a tenth of them masked."""
    draw = np.random.default_rng(seed)
    losses = draw.integers(0, distinct, shape).astype(float)
    losses[draw.random(shape) < 0.1] = draw.choice([math.nan, math.inf, -math.inf])
    return losses


RANDOM = [
    (shape, diagonals, seed, distinct)
    for shape in [(17,), (6, 7), (3, 4, 4)]
    for diagonals in (True, False)
    for seed, distinct in enumerate([4, 12, 1000])
]


@pytest.mark.parametrize(("shape", "diagonals", "seed", "distinct"), RANDOM)
def test_bars_are_those_that_counted_components_give(shape, diagonals, seed, distinct):
    losses = drawn(shape, seed, distinct)
    bars = persistence_barcode(losses, diagonals=diagonals)
    np.testing.assert_array_equal(in_order(bars), in_order(counted_barcode(losses, diagonals)))


@pytest.mark.parametrize(("shape", "diagonals", "seed", "distinct"), RANDOM)
def test_each_saddle_joins_its_minimum_to_a_lower_one(shape, diagonals, seed, distinct):
    losses = drawn(shape, seed, distinct)
    tree = merge_tree(losses, diagonals=diagonals)
    assert (np.diff(tree.births) >= 0).all()
    for row, (birth, death, minimum, saddle, elder) in enumerate(
        zip(tree.births, tree.deaths, tree.minima, tree.saddles, tree.elders, strict=True)
    ):
        assert losses[tuple(minimum)] == birth
        if death == math.inf:
            assert (elder, saddle.tolist()) == (-1, [-1] * losses.ndim)
            continue
        assert losses[tuple(saddle)] == death
        assert 0 <= elder < row
        before, after = labels(losses, diagonals, death, strictly=True), labels(losses, diagonals, death)
        own, other = tuple(minimum), tuple(tree.minima[elder])
        assert before[own] != before[other]
        assert after[own] == after[other] == after[tuple(saddle)]


def test_a_double_well_has_two_minima_of_persistence_one():
    x = np.linspace(-1.5, 1.5, 13)
    well = (x**2 - 1) ** 2
    tree = merge_tree(well)
    assert tree.barcode.tolist() == [[0.0, math.inf], [0.0, 1.0]]
    assert x[tree.minima[:, 0]].tolist() == [-1.0, 1.0]
    assert x[tree.saddles[1]].tolist() == [0.0]
    assert tree.elders.tolist() == [-1, 0]
    assert tree.persistence[1] == tree.total_persistence == 1.0
    assert tree.saddle_heights.tolist() == [1.0]
    assert [tree.num_minima(above) for above in (0.0, 0.999, 1.0)] == [2, 2, 1]
    for axes in (2, 3):
        valley = well.reshape(-1, *[1] * (axes - 1)) + sum(np.meshgrid(*[x**2] * axes, indexing="ij")[1:])
        assert merge_tree(valley).barcode.tolist() == tree.barcode.tolist()


@pytest.mark.parametrize("diagonals", [True, False])
def test_rosenbrocks_valley_has_its_minimum_at_one_one(diagonals):
    x, y = np.linspace(-2, 2, 9), np.linspace(-1, 3, 9)
    losses = (1 - x[:, None]) ** 2 + 100 * (y[None] - x[:, None] ** 2) ** 2
    tree = merge_tree(losses, diagonals=diagonals)
    assert (x[tree.minima[0, 0]], y[tree.minima[0, 1]], tree.births[0]) == (1.0, 1.0, 0.0)
    np.testing.assert_array_equal(in_order(tree.barcode), in_order(counted_barcode(losses, diagonals)))


def test_a_valley_that_runs_askew_holds_together_by_its_diagonals():
    losses = 1.0 - np.eye(4)
    assert merge_tree(losses).num_minima() == 1
    assert merge_tree(losses, diagonals=False).num_minima() == 4
    assert merge_tree(1 - np.stack([np.diag([1.0, 0, 0]), np.diag([0, 1.0, 0]), np.diag([0, 0, 1.0])])).num_minima() == 1


def test_ties_fall_to_the_first_cell():
    tree = merge_tree(np.array([0.0, 1.0, 0.0, 0.0, 1.0, 0.0]))
    assert tree.minima[:, 0].tolist() == [0, 2, 5]
    assert tree.saddles[:, 0].tolist() == [-1, 1, 4]
    assert tree.elders.tolist() == [-1, 0, 0]
    assert merge_tree(np.zeros((5, 5))).minima.tolist() == [[0, 0]]


def test_masked_cells_cut_a_grid_apart():
    cut = np.array([3.0, 1.0, math.nan, 2.0, 5.0, 4.0])
    tree = merge_tree(cut)
    assert tree.barcode.tolist() == [[1.0, math.inf], [2.0, math.inf], [4.0, 5.0]]
    assert tree.elders.tolist() == [-1, -1, 1]
    assert tree.total_persistence == 1.0
    empty = merge_tree(np.full((3, 3), math.nan))
    assert (empty.num_minima(), empty.total_persistence, empty.barcode.shape, empty.minima.shape) == (0, 0.0, (0, 2), (0, 2))
    assert empty.places.tolist() == []


def test_a_grid_is_taken_for_its_losses():
    losses = np.random.default_rng(0).random((5, 6))
    grid = Grid(losses, (np.arange(5.0), np.arange(6.0)), {})
    np.testing.assert_array_equal(persistence_barcode(grid), persistence_barcode(losses))
    with pytest.raises(ValueError, match="a line, a plane or a volume, got an array of 4 dimensions"):
        merge_tree(np.zeros((2, 2, 2, 2)))


def crossings(tree: MergeTree) -> int:
    count = 0
    for row, elder in enumerate(tree.elders):
        if elder >= 0:
            left, right = sorted((tree.places[row], tree.places[elder]))
            between = (left < tree.places) & (tree.places < right)
            count += int((between & (tree.births < tree.deaths[row]) & (tree.deaths[row] < tree.deaths)).sum())
    return count


@pytest.mark.parametrize("seed", range(4))
def test_no_two_lines_of_a_drawn_tree_cross(seed):
    tree = merge_tree(drawn((20, 20), seed, 10_000))
    assert sorted(tree.places) == list(range(len(tree.births)))
    assert len(tree.births) > 20
    assert crossings(tree) == 0


def paired(first: np.ndarray, second: np.ndarray) -> float:
    """The bottleneck distance of finite bars over all ways to pair them, each with the diagonal too."""

    def cost(a: np.ndarray | None, b: np.ndarray | None) -> float:
        if a is None or b is None:
            alone = b if a is None else a
            return 0.0 if alone is None else (alone[1] - alone[0]) / 2
        return max(abs(a - b))

    one, other = [*first, *[None] * len(second)], [*second, *[None] * len(first)]
    return min(max(map(cost, one, shuffled), default=0.0) for shuffled in itertools.permutations(other))


@pytest.mark.parametrize("seed", range(12))
def test_bottleneck_distance_is_the_best_of_all_pairings(seed):
    draw = np.random.default_rng(seed)
    bars = [np.sort(draw.integers(0, 12, (count, 2)) / 4.0, axis=1) for count in draw.integers(0, 5, 2)]
    assert bottleneck_distance(*bars) == pytest.approx(paired(*bars), abs=1e-15)
    assert bottleneck_distance(*bars[::-1]) == bottleneck_distance(*bars)


def test_infinite_bars_pair_among_themselves():
    one = np.array([[0.0, math.inf], [2.0, 3.0]])
    assert bottleneck_distance(one, one) == 0.0
    assert bottleneck_distance(one, np.array([[0.75, math.inf]])) == 0.75
    assert bottleneck_distance(one, np.array([[0.25, math.inf]])) == 0.5
    assert bottleneck_distance(one, one[1:]) == math.inf
    assert bottleneck_distance(one[:0], one[:0]) == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_a_grid_that_moves_by_little_has_bars_that_move_by_no_more(seed):
    """The stability theorem (Cohen-Steiner, Edelsbrunner & Harer 2007)."""
    draw = np.random.default_rng(seed)
    losses, noise = draw.random((9, 9)), 0.1 * draw.uniform(-1, 1, (9, 9))
    distance = bottleneck_distance(merge_tree(losses), merge_tree(losses + noise))
    assert 0 < distance <= np.abs(noise).max()
    assert bottleneck_distance(merge_tree(losses), merge_tree(losses + 0.5)) == pytest.approx(0.5)


@pytest.mark.parametrize("bars", [[[1.0, 0.0]], [[math.inf, math.inf]], [[math.nan, 1.0]], [0.0, 1.0]])
def test_what_are_no_bars_is_refused(bars):
    with pytest.raises(ValueError, match=r"expected bars \[m, 2\] of \(birth, death\)"):
        bottleneck_distance(np.array(bars), np.zeros((0, 2)))


def test_a_tree_is_saved_and_loaded(tmp_path):
    tree = merge_tree(np.random.default_rng(0).standard_normal((6, 5)))
    tree.save(tmp_path / "tree.npz")
    again = MergeTree.load(tmp_path / "tree.npz")
    for name in ("births", "deaths", "minima", "saddles", "elders", "places"):
        np.testing.assert_array_equal(getattr(again, name), getattr(tree, name))
    assert repr(again) == repr(tree)
    assert "\n" not in repr(tree)


def test_a_tree_is_a_table_of_its_components():
    rows = merge_tree(np.array([[3.0, 0.0, 2.0, 1.0, 4.0]])).to_pandas()
    assert list(rows) == ["birth", "death", "persistence", "elder", "minimum_i", "minimum_j", "saddle_i", "saddle_j"]
    assert rows.iloc[1].tolist() == [1.0, 2.0, 1.0, 0, 0, 3, 0, 2]


def test_a_grid_without_a_finite_cell_has_no_minimum():
    tree = merge_tree(np.full((3, 4), np.nan))
    assert (tree.num_minima(), tree.total_persistence, tree.barcode.shape, len(tree.places)) == (0, 0.0, (0, 2), 0)
    assert repr(tree) == "MergeTree(no minima: no cell is finite)"
    assert bottleneck_distance(tree, tree) == 0.0


def test_what_holds_no_losses_is_refused():
    with pytest.raises(TypeError, match="expected a Grid or an array of losses, got str"):
        merge_tree("plane.npy")
