"""How far out a grid goes when it is left to find that out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from surfaces import quadratic, surface_of
from torch import Tensor, nn

from loss_landscape import AutoSpan, LossSurface, evaluate_grid, random_directions
from loss_landscape.grids.span import found_span
from loss_landscape.results.info import SpanSearch


def surface_over(function) -> LossSurface:
    """`function` of one parameter, which is 0."""

    class Point(nn.Module):
        def __init__(self):
            super().__init__()
            self.x = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    return LossSurface(Point(), batches=[0], batch_loss=lambda model, _: function(model.x).sum())


def half_width(function, target_rise: float | None = None) -> tuple[float, SpanSearch]:
    surface = surface_over(function)
    plane = surface.plane([torch.ones(1, dtype=torch.float64)])
    return found_span(plane, AutoSpan(target_rise), baseline=surface.loss())


@pytest.mark.parametrize("target", [1e-4, 0.3, 1.0, 1.1, 50.0, 1e5])
def test_it_is_the_first_power_of_two_at_which_a_bowl_has_risen_enough(target):
    width, found = half_width(lambda x: 2.0 + x.square(), target)
    assert width == 2.0 ** math.ceil(math.log2(math.sqrt(target)))
    assert width**2 >= target > (width / 2) ** 2
    assert found.reached
    assert found.target_rise == target
    np.testing.assert_allclose([rise for _, rise in found.median_rises], [h**2 for h, _ in found.median_rises])


def test_the_target_is_ten_times_the_loss_and_at_least_a_tenth():
    assert half_width(lambda x: 3.0 + x.square())[1].target_rise == 30.0
    assert half_width(lambda x: 1e-9 + x.square())[1].target_rise == pytest.approx(0.1)
    assert half_width(lambda x: x.square() - 3.0)[1].target_rise == 30.0


def test_the_median_is_taken_over_both_ends_of_each_direction():
    surface = quadratic([0.0, 1.0, 100.0])
    plane = surface.plane(list(torch.eye(3, dtype=torch.float64)))
    _, found = found_span(plane, AutoSpan(0.25), baseline=surface.loss())  # ½·(0, 0, 1, 1, 100, 100)·h², the middle two alike
    assert found.median_rises == ((0.5, 0.125), (1.0, 0.5))


def test_a_loss_that_never_rises_or_never_falls_ends_the_search():
    width, found = half_width(lambda x: 1.0 - x.square())
    assert (width, found.reached) == (1024.0, False)
    width, found = half_width(lambda x: torch.where(x == 0, 0.0, 5.0) + 0.0 * x)
    assert (width, found.reached) == (2.0**-10, True)


def test_what_is_not_finite_counts_as_risen():
    def walled(x: Tensor) -> Tensor:
        return torch.where(x.abs() > 0.3, math.nan, x)

    width, found = half_width(walled)
    assert width == 0.5
    assert found.median_rises == ((0.25, 0.0), (0.5, math.inf), (1.0, math.inf))


def test_a_grid_takes_it_and_tells_what_was_found():
    surface = surface_of()
    axes = random_directions(surface)
    grid = evaluate_grid(surface, axes, 5, AutoSpan(0.2))
    (width,) = {axis[-1] for axis in grid.coordinates}
    assert grid.meta["span"] == [[-width, width]] * 2
    edges = [grid.losses[0, 2], grid.losses[-1, 2], grid.losses[2, 0], grid.losses[2, -1]]
    found = grid.info.span_found
    assert np.median(edges) - surface.loss() == pytest.approx(dict(found.median_rises)[width], rel=1e-5)
    assert np.median(edges) - surface.loss() >= found.target_rise == 0.2
    assert np.array_equal(grid.losses, evaluate_grid(surface, axes, 5, (-width, width)).losses)


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan])
def test_a_target_that_is_no_rise_is_refused(target):
    with pytest.raises(ValueError, match=f"target_rise must be finite and above 0, or None, got {target}"):
        AutoSpan(target)


def test_a_loss_that_is_not_finite_has_no_span():
    with pytest.raises(ValueError, match="the loss at the origin is nan"):
        half_width(lambda x: x * math.nan)
