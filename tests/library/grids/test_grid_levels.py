"""Coarse levels first, the rest predicted where that was measured to be right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import RectBivariateSpline
from surfaces import quadratic
from torch import Tensor, nn

from loss_landscape import Evaluation, LossSurface, evaluate_grid, random_directions
from loss_landscape.grids.cell_order import CellOrder
from loss_landscape.grids.refinement import level_errors, predicted
from loss_landscape.results.info import LevelErrors


def order_of(*lengths: int) -> CellOrder:
    return CellOrder(tuple(np.linspace(-1, 1, length) for length in lengths))


# The order


@pytest.mark.parametrize("lengths", [(2,), (5, 5), (21,), (41, 41), (40, 40), (51, 51), (21, 21, 21), (41, 21), (1000,)])
def test_levels_are_nested_and_each_cell_comes_once(lengths):
    order = order_of(*lengths)
    assert sorted(order.cells) == list(range(np.prod(lengths)))
    assert np.array_equal(np.sort(order.ranks), order.ranks[order.cells])
    assert np.array_equal(order.cells, order_of(*lengths).cells)
    for axis, length in enumerate(lengths):
        levels = [level[axis] for level in order.levels]
        assert levels[-1].tolist() == list(range(length))
        for coarse, fine in zip(levels, levels[1:], strict=False):
            assert set(coarse) < set(fine)
            assert {0, length - 1} <= set(coarse)
            assert len(fine) // 2 <= len(coarse) <= len(fine) // 2 + 1
    for level, places in enumerate(order.levels):
        cells = set(np.arange(np.prod(lengths)).reshape(lengths)[np.ix_(*places)].flat)
        assert cells <= set(order.cells[: order.through(level)])
        assert len(set(order.cells[: order.through(level)]) - cells) <= 1, "the cell at the origin comes first"


def test_forty_one_cells_a_side_come_in_levels_of_11_21_and_41():
    assert [[len(places) for places in level] for level in order_of(41, 41).levels] == [[11, 11], [21, 21], [41, 41]]
    assert [len(level[0]) for level in order_of(21).levels] == [11, 21]
    assert [len(level[0]) for level in order_of(20).levels] == [11, 20]
    assert [len(level[0]) for level in order_of(19).levels] == [19]


def test_the_first_cells_are_the_origin_and_two_corners():
    assert order_of(41, 41).cells[:3].tolist() == [20 * 41 + 20, 0, 41 * 41 - 1]
    assert order_of(51, 51).cells[0] == 25 * 51 + 25, "though no coarser level holds it"
    assert CellOrder((np.linspace(0, 1, 4),)).cells[:2].tolist() == [0, 3]
    off_centre = CellOrder((np.linspace(-4, 1, 6), np.linspace(-0.1, 0.4, 6)))
    assert off_centre.cells[0] == 4 * 6 + 1


def test_cells_of_a_level_are_spread_over_the_grid():
    """What follows a level is the sample that its prediction is held to."""
    order = order_of(41, 41)
    held_out = order.cells[order.through(1) : order.through(1) + 64]
    rows, columns = np.unravel_index(held_out, (41, 41))
    for places in (rows, columns):
        counts = np.histogram(places, bins=4, range=(0, 41))[0]
        assert counts.min() >= 7  # 16 expected


# The prediction


def test_it_is_the_bicubic_spline():
    order = CellOrder((np.linspace(-1, 2, 41), np.linspace(0, 0.5, 41)))
    x, y = np.meshgrid(*order.axes, indexing="ij")
    losses = np.sin(3 * x) * np.cos(5 * y) - 0.3
    for level in (0, 1):
        rows, columns = order.levels[level]
        given = losses[np.ix_(rows, columns)]
        spline = RectBivariateSpline(order.axes[0][rows], order.axes[1][columns], given, s=0)
        np.testing.assert_allclose(
            predicted(order, losses.reshape(-1), level), spline(*order.axes).reshape(-1), rtol=0, atol=1e-12
        )


def test_positive_losses_are_predicted_by_their_logarithm():
    order = order_of(41, 41)
    x, y = np.meshgrid(*order.axes, indexing="ij")
    cubic = np.exp(20 * x**3 - 10 * y**2 * x + 3 * y).reshape(-1)  # fifty decades: exact in the logarithm alone
    np.testing.assert_allclose(predicted(order, cubic, 0), cubic, rtol=1e-9)
    both_signs = (x**3 - y).reshape(-1)
    np.testing.assert_allclose(predicted(order, both_signs, 0), both_signs, atol=1e-12)


def test_only_the_levels_own_cells_are_looked_at():
    order = order_of(41, 41)
    losses = np.full(41 * 41, np.nan)
    of_level = order.cells[: order.through(1)]
    losses[of_level] = 2.0
    assert np.allclose(predicted(order, losses, 1), 2.0)


def test_errors_are_the_largest_relative_ones():
    order = order_of(41)
    losses = np.ones(41)
    (coarse,), (fine,) = order.levels[0], order.levels[1]
    new = next(place for place in fine if place not in coarse and place != 20)
    unseen = next(place for place in range(41) if place not in fine)
    losses[new], known = 1.25, np.isin(np.arange(41), [*fine, unseen])
    losses[unseen] = 0.0
    losses[unseen + 2] = -100.0  # not known
    errors, guesses = level_errors(order, losses, known, 1)
    assert errors.new_cells == pytest.approx(0.25 / 1.25)
    assert errors.held_out == np.inf
    assert (errors.cells_a_side, errors.num_held_out) == (21, 1)
    assert guesses[new] == pytest.approx(1.25)
    losses[unseen] = 0.5 * guesses[unseen]
    assert level_errors(order, losses, known, 1)[0].held_out == pytest.approx(1.0)


def test_both_errors_must_keep_to_the_tolerance():
    assert LevelErrors(21, 0.01, 0.01, 64).within(0.01)
    assert not LevelErrors(21, 0.011, 0.001, 64).within(0.01)
    assert not LevelErrors(21, 0.001, 0.011, 64).within(0.01)
    assert not LevelErrors(21, float("nan"), 0.001, 64).within(0.01)


# Grids


def training(activation: type[nn.Module], seed: int) -> list[LossSurface]:
    """A net on two interleaved rings before training and at three later times."""
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    angles, labels = 6.3 * torch.rand(128, generator=draw), torch.randint(0, 2, (128,), generator=draw)
    inputs = torch.stack([angles.cos(), angles.sin()], dim=1) * (1 + 0.5 * labels[:, None])
    inputs = inputs + 0.2 * torch.randn(128, 2, generator=draw)
    net = nn.Sequential(nn.Linear(2, 16), activation(), nn.Linear(16, 16), activation(), nn.Linear(16, 2))
    optimizer, surfaces = torch.optim.Adam(net.parameters(), 1e-2), []
    for step in range(301):
        if step in (0, 30, 100, 300):
            surfaces.append(LossSurface(net, nn.CrossEntropyLoss(), [(inputs, labels)]))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    return surfaces


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU])
def test_no_cell_of_a_trained_nets_plane_is_beyond_the_tolerance(activation):
    saved = []
    for seed, surface in enumerate(training(activation, 0)):
        axes = random_directions(surface, generator=torch.Generator().manual_seed(seed))
        exact = evaluate_grid(surface, axes, 41)
        for tolerance in (0.003, 0.03):
            grid = evaluate_grid(surface, axes, 41, tolerance=tolerance)
            errors = np.abs(grid.losses - exact.losses) / np.abs(exact.losses)
            assert errors.max() <= tolerance
            assert np.array_equal(grid.losses[grid.evaluated], exact.losses[grid.evaluated])
            assert grid.num_evaluated == grid.evaluated.sum()
            saved.append(1 - grid.evaluated.mean())
            *_, last = grid.meta["refinement"]
            assert (grid.info.largest_held_out_error == last["held_out"]) == (saved[-1] > 0)
    assert max(saved) > 0.6


def test_what_the_meta_says_was_measured():
    surface = training(nn.Tanh, 1)[1]
    axes = random_directions(surface)
    exact = evaluate_grid(surface, axes, 41, evaluation=Evaluation(chunk=1)).losses.reshape(-1)
    grid = evaluate_grid(surface, axes, 41, tolerance=0.1, evaluation=Evaluation(chunk=1))
    order = CellOrder(grid.coordinates)
    (told,) = grid.meta["refinement"]
    new, held_out = order.cells[order.through(0) : order.through(1)], order.cells[order.through(1) :][:64]
    assert told["num_held_out"] == 64
    assert told["cells_a_side"] == 21
    for name, cells, level in (("new_cells", new, 0), ("held_out", held_out, 1)):
        errors = np.abs(predicted(order, exact, level) - exact) / exact
        assert told[name] == pytest.approx(errors[cells].max(), rel=1e-3)
    assert np.array_equal(np.sort(np.flatnonzero(grid.evaluated)), np.sort(order.cells[: order.through(1) + 64]))
    assert grid.info.largest_held_out_error == told["held_out"] <= 0.1 == grid.info.tolerance


def test_a_line_is_predicted_too():
    surface = training(nn.Tanh, 0)[1]
    (axis, _) = random_directions(surface)
    exact, line = evaluate_grid(surface, (axis,), 401), evaluate_grid(surface, (axis,), 401, tolerance=0.01)
    assert line.evaluated.mean() < 0.5
    assert np.abs(line.losses / exact.losses - 1).max() <= 0.01


def test_losses_of_both_signs_and_a_sam_grids_cells_keep_to_their_order():
    surface = quadratic([3.0, -2.0])
    axes = tuple(torch.eye(2, dtype=torch.float64))
    grid = evaluate_grid(surface, axes, 41, tolerance=0.01)
    alpha, beta = np.meshgrid(*grid.coordinates, indexing="ij")
    exact = 0.5 * (3 * (1 + alpha) ** 2 - 2 * beta**2)
    np.testing.assert_allclose(grid.losses[grid.evaluated], exact[grid.evaluated], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(grid.losses, exact, rtol=0.01, atol=1e-9)
    sam = evaluate_grid(surface, axes, 41, rho=0.0, tolerance=0.01)
    assert not sam.evaluated.all()
    np.testing.assert_allclose(sam.losses, exact, rtol=0.01, atol=1e-9)


class Walled(nn.Module):
    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("wall", [0.5, 0.99])
def test_a_grid_with_cells_that_are_not_finite_is_evaluated_in_full(wall):
    def loss(net: nn.Module, _: int) -> Tensor:
        return (wall - net.x[0]).log() + 0.0 * net.x[1]

    surface = LossSurface(Walled(), batches=[0], batch_loss=loss)
    axes = tuple(torch.eye(2, dtype=torch.float64))
    grid = evaluate_grid(surface, axes, 41, tolerance=0.1)
    assert grid.evaluated.all()
    assert grid.info.largest_held_out_error is None
    assert grid.num_nonfinite == 41 * int((np.linspace(-1, 1, 41) >= wall).sum())


def test_a_hole_between_the_coarse_cells_is_found_by_the_held_out_ones():
    """A bump of half a plane's height that no cell of the 21×21 touches, on a twentieth of the others."""

    def loss(net: nn.Module, _: int) -> Tensor:
        fine = torch.remainder(net.x / 0.05 + 0.5, 2) - 1  # within 0 … 1 where a coordinate is between two of the 21
        return 1 + net.x.square().sum() + 0.5 * ((fine.abs() < 0.6).any() & (net.x[0] > 0.8)).double()

    surface = LossSurface(Walled(), batches=[0], batch_loss=loss)
    grid = evaluate_grid(surface, tuple(torch.eye(2, dtype=torch.float64)), 41, tolerance=0.01)
    assert grid.evaluated.all()
    assert grid.meta["refinement"][0]["held_out"] > 0.1


def test_small_grids_are_evaluated_in_full():
    surface = training(nn.Tanh, 0)[0]
    for side in (2, 11, 21, 37, 38):
        grid = evaluate_grid(surface, random_directions(surface), side, tolerance=0.5)
        assert grid.evaluated.all() == (side < 38)


def test_volumes_take_no_tolerance():
    surface = quadratic([1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="tolerance is for lines and planes, got a volume; give tolerance=None"):
        evaluate_grid(surface, tuple(torch.eye(3, dtype=torch.float64)), 3, tolerance=0.01)
