from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from nets import mlp
from torch import Tensor, nn

from loss_landscape import (
    LossSurface,
    asam_sharpness,
    evaluate_grid,
    evaluate_sam_grid,
    expected_sharpness,
    first_order_sharpness,
    random_directions,
    sam_sharpness,
)


def surface_of(net: nn.Module) -> LossSurface:
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(32, 6, generator=draw, dtype=torch.float64)
    return LossSurface(net.double(), nn.CrossEntropyLoss(), [(inputs, torch.randint(0, 3, (32,), generator=draw))])


class Bowl(nn.Module):
    def __init__(self, start: list[float]):
        super().__init__()
        self.x = nn.Parameter(torch.tensor(start, dtype=torch.float64))


def bowl(start: list[float], curvatures: list[float]) -> LossSurface:
    weights = torch.tensor(curvatures, dtype=torch.float64)
    return LossSurface(Bowl(start), batches=[0], batch_loss=lambda model, _: 0.5 * (weights * model.x.square()).sum())


def test_sam_on_a_bowl_is_the_closed_form():
    """One normalised ascent step, not the first-order ρ‖g‖."""
    start, curvatures, rho = torch.tensor([1.0, -2.0]).double(), torch.tensor([3.0, 0.5]).double(), 0.4
    surface = bowl(start.tolist(), curvatures.tolist())
    slope = curvatures * start
    there = start + rho * slope / slope.norm()
    rise = 0.5 * float((curvatures * (there.square() - start.square())).sum())
    assert sam_sharpness(surface, rho) == pytest.approx(rise, rel=1e-12)
    assert first_order_sharpness(surface, rho) == pytest.approx(rho * float(slope.norm()), rel=1e-12)
    assert rise != pytest.approx(rho * float(slope.norm()), rel=0.05)
    scale = start.abs() + 0.01
    there = start + rho * scale**2 * slope / (scale * slope).norm()
    rise = 0.5 * float((curvatures * (there.square() - start.square())).sum())
    assert asam_sharpness(surface, rho, eta=0.01) == pytest.approx(rise, rel=1e-12)


def test_at_a_critical_point_there_is_no_ascent():
    surface = bowl([0.0, 0.0], [1.0, 2.0])
    assert sam_sharpness(surface, 0.1) == 0.0
    assert asam_sharpness(surface, 0.1) == 0.0


def test_sam_approaches_its_first_order_for_a_small_radius():
    surface = surface_of(mlp(width=20))
    assert sam_sharpness(surface, 1e-6) == pytest.approx(first_order_sharpness(surface, 1e-6), rel=1e-4)


def test_asam_does_not_change_when_a_relu_nets_layers_are_rescaled():
    torch.manual_seed(0)
    net = mlp(width=20, activation=nn.ReLU).double()
    scaled = copy.deepcopy(net)
    with torch.no_grad():
        scaled[0].weight.mul_(5)
        scaled[0].bias.mul_(5)
        scaled[2].weight.div_(5)
    before, after = surface_of(net), surface_of(scaled)
    assert asam_sharpness(after, 0.5, eta=0.0) == pytest.approx(asam_sharpness(before, 0.5, eta=0.0), rel=1e-9)
    assert sam_sharpness(after, 0.5) != pytest.approx(sam_sharpness(before, 0.5), rel=1e-2)


def test_a_filter_normalised_plane_does_not_change_when_a_relu_nets_layers_are_rescaled():
    torch.manual_seed(0)
    net = mlp(width=20, activation=nn.ReLU).double()
    scaled = copy.deepcopy(net)
    with torch.no_grad():
        scaled[0].weight.mul_(5)
        scaled[0].bias.mul_(5)
        scaled[2].weight.div_(5)
    lines = []
    for surface in (surface_of(net), surface_of(scaled)):
        axis = random_directions(surface, 1, "filter", torch.Generator().manual_seed(3))
        lines.append(evaluate_grid(surface, axis, 11).losses)
    np.testing.assert_allclose(lines[0], lines[1], rtol=1e-9)


def test_expected_sharpness_of_a_bowl_is_half_the_trace():
    surface = bowl([1.0, -2.0, 0.5], [3.0, 0.5, 1.0])
    estimate = expected_sharpness(surface, 0.1, 400, torch.Generator().manual_seed(0))
    assert estimate.value == pytest.approx(0.5 * 0.01 * 4.5, abs=4 * estimate.standard_error)
    assert estimate.num_samples == 400
    assert 0 < estimate.standard_error < 0.1 * estimate.value


def naive(surface: LossSurface, move: Tensor, rho: float) -> float:
    slope = surface.gradient(move)
    return float(surface.losses(displacements=(move + rho * slope / slope.norm())[None]))


def test_each_cell_of_a_sam_grid_steps_up_its_own_gradient():
    surface = surface_of(mlp(width=12))
    axes = random_directions(surface)
    grid = evaluate_sam_grid(surface, axes, 0.2, 5)
    for i, alpha in enumerate(grid.coordinates[0]):
        for j, beta in enumerate(grid.coordinates[1]):
            assert grid.losses[i, j] == pytest.approx(naive(surface, alpha * axes[0] + beta * axes[1], 0.2), rel=1e-10)
    assert grid.meta["rho_absolute"] == 0.2
    assert grid.meta["rho_relative"] == pytest.approx(0.2 / float(surface.origin.norm()))
    assert grid.losses[2, 2] - surface.loss() == pytest.approx(sam_sharpness(surface, 0.2), abs=1e-15)


def test_a_sam_grid_keeps_to_the_chunk_and_to_the_hours_given():
    surface, told = surface_of(mlp(width=12)), []
    axes = random_directions(surface)
    grid = evaluate_sam_grid(surface, axes, 0.2, 11, chunk=5, progress=lambda fraction, left: told.append(fraction))
    assert grid.meta["chunk"] == 5
    assert told[-1] == 1
    assert len(told) > 1
    with pytest.raises(TimeoutError, match="abort_if_estimated_hours_over = 1e-12"):
        evaluate_sam_grid(surface, axes, 0.2, 11, chunk=1, abort_if_estimated_hours_over=1e-12)


@pytest.mark.parametrize(("resolution", "stride", "side"), [(9, 2, 5), (9, 3, 3), (11, 2, 5), (8, 3, 3), (41, 2, 21)])
def test_a_stride_keeps_cells_of_the_losss_grid_the_centre_among_them(resolution, stride, side):
    surface = bowl([1.0, -2.0], [3.0, 0.5])
    axes = tuple(torch.eye(2, dtype=torch.float64))
    plain, grid = evaluate_grid(surface, axes, resolution), evaluate_sam_grid(surface, axes, 0.1, resolution, stride=stride)
    assert grid.losses.shape == (side, side)
    assert set(grid.coordinates[0]) <= set(plain.coordinates[0])
    assert (0.0 in grid.coordinates[0]) == (resolution % 2 == 1)
    assert grid.meta["resolution"] == side
    assert grid.meta["stride"] == stride


def test_a_radius_of_zero_gives_the_plain_grid():
    surface = surface_of(mlp(width=12))
    axes = random_directions(surface)
    np.testing.assert_allclose(
        evaluate_sam_grid(surface, axes, 0.0, 5).losses, evaluate_grid(surface, axes, 5).losses, rtol=1e-12
    )


def test_bad_options_are_refused():
    surface = bowl([1.0, 1.0], [1.0, 1.0])
    axes = tuple(torch.eye(2, dtype=torch.float64))
    with pytest.raises(ValueError, match="rho must be finite and ≥ 0, got -1"):
        sam_sharpness(surface, -1)
    with pytest.raises(ValueError, match="stride must be ≥ 1"):
        evaluate_sam_grid(surface, axes, 0.1, stride=0)
    with pytest.raises(ValueError, match="leaves fewer than 2"):
        evaluate_sam_grid(surface, axes, 0.1, 5, stride=5)
    with pytest.raises(ValueError, match="sigma must be > 0"):
        expected_sharpness(surface, 0)
    with pytest.raises(ValueError, match="num_samples must be ≥ 2"):
        expected_sharpness(surface, 0.1, 1)
