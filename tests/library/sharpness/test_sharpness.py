from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from nets import mlp
from torch import Tensor, nn

from loss_landscape import (
    AutoSpan,
    Checkpointing,
    Evaluation,
    LossSurface,
    Shard,
    asam_sharpness,
    evaluate_grid,
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
        axis = random_directions(surface, 1, normalization="filter", generator=3)
        lines.append(evaluate_grid(surface, axis, 11).losses)
    np.testing.assert_allclose(lines[0], lines[1], rtol=1e-9)


def test_expected_sharpness_of_a_bowl_is_half_the_trace():
    surface = bowl([1.0, -2.0, 0.5], [3.0, 0.5, 1.0])
    estimate = expected_sharpness(surface, 0.1, num_samples=400, generator=0)
    assert estimate.value == pytest.approx(0.5 * 0.01 * 4.5, abs=4 * estimate.standard_error)
    assert estimate.num_samples == 400
    assert 0 < estimate.standard_error < 0.1 * estimate.value


def naive(surface: LossSurface, move: Tensor, rho: float) -> float:
    slope = surface.gradient(move)
    return float(surface.losses(displacements=(move + rho * slope / slope.norm())[None]))


def test_each_cell_of_a_sam_grid_steps_up_its_own_gradient():
    surface = surface_of(mlp(width=12))
    axes = random_directions(surface)
    grid = evaluate_grid(surface, axes, 5, rho=0.2)
    for i, alpha in enumerate(grid.coordinates[0]):
        for j, beta in enumerate(grid.coordinates[1]):
            assert grid.losses[i, j] == pytest.approx(naive(surface, alpha * axes[0] + beta * axes[1], 0.2), rel=1e-10)
    assert grid.meta["rho_absolute"] == 0.2
    assert grid.meta["rho_relative"] == pytest.approx(0.2 / float(surface.origin.norm()))
    assert grid.losses[2, 2] - surface.loss() == pytest.approx(sam_sharpness(surface, 0.2), abs=1e-15)


def test_a_sam_grid_keeps_to_the_chunk_and_to_the_hours_given():
    surface, told = surface_of(mlp(width=12)), []
    axes = random_directions(surface)
    grid = evaluate_grid(
        surface,
        axes,
        11,
        rho=0.2,
        evaluation=Evaluation(chunk=5),
        checkpointing=Checkpointing(progress=lambda fraction, left: told.append(fraction)),
    )
    assert grid.meta["chunk"] == 5
    assert told[-1] == 1
    assert len(told) > 1
    with pytest.raises(TimeoutError, match="max_hours = 1e-12"):
        evaluate_grid(surface, axes, 11, rho=0.2, evaluation=Evaluation(chunk=1), checkpointing=Checkpointing(max_hours=1e-12))


def test_a_sam_grid_takes_all_that_a_grid_of_the_loss_takes(tmp_path):
    surface = surface_of(mlp(width=12))
    axes = random_directions(surface)
    whole = evaluate_grid(surface, axes, 41, rho=0.2)
    rough = evaluate_grid(surface, axes, 41, rho=0.2, tolerance=0.01)
    assert not rough.evaluated.all()
    np.testing.assert_allclose(rough.losses, whole.losses, rtol=0.02)
    options = {"rho": 0.2, "evaluation": Evaluation(chunk=4)}
    small = evaluate_grid(surface, axes, 9, **options)
    for index in range(2):
        evaluate_grid(surface, axes, 9, **options, checkpointing=Checkpointing(tmp_path / "sam.npz", Shard(index, 2)))
    together = evaluate_grid(surface, axes, 9, **options, checkpointing=Checkpointing(tmp_path / "sam.npz"))
    assert together.losses.tobytes() == small.losses.tobytes()
    assert together.info.rho == 0.2


def test_a_sam_grid_finds_its_own_span():
    surface = bowl([1.0, 0.0], [1.0, 1.0])
    axes = torch.eye(2, dtype=torch.float64)
    grid = evaluate_grid(surface, axes, 3, AutoSpan(3.0), rho=1.0)  # L = (‖x‖ + ρ)²/2
    rises = dict(grid.info.span_found.median_rises)
    assert grid.info.baseline_loss == pytest.approx(2.0)
    assert grid.span[0][1] == 2.0
    assert rises[1.0] == pytest.approx((2**0.5 + 1) ** 2 / 2 - 2)  # of the four ends: 1/2 − 2, twice that, and 9/2 − 2
    assert rises[2.0] == pytest.approx((5**0.5 + 1) ** 2 / 2 - 2)


def test_a_sam_grid_in_bfloat16_tells_its_error():
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(0)
    batch = torch.randn(32, 6, generator=draw), torch.randint(0, 3, (32,), generator=draw)
    surface = LossSurface(mlp(width=12), nn.CrossEntropyLoss(), [batch])
    axes = random_directions(surface)
    exact = evaluate_grid(surface, axes, 5, rho=0.2)
    grid = evaluate_grid(surface, axes, 5, rho=0.2, evaluation=Evaluation(precision="bfloat16"))
    error = np.abs(grid.losses / exact.losses - 1).max()
    assert 1e-6 < error < 0.1
    assert grid.info.noise.precision_error.relative <= error * 1.01


def test_a_radius_of_zero_gives_the_plain_grid():
    surface = surface_of(mlp(width=12))
    axes = random_directions(surface)
    np.testing.assert_allclose(
        evaluate_grid(surface, axes, 5, rho=0.0).losses, evaluate_grid(surface, axes, 5).losses, rtol=1e-12
    )


def test_bad_options_are_refused():
    surface = bowl([1.0, 1.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="rho must be finite and ≥ 0, got -1"):
        sam_sharpness(surface, -1)
    with pytest.raises(ValueError, match="sigma must be > 0"):
        expected_sharpness(surface, 0)
    with pytest.raises(ValueError, match="num_samples must be ≥ 2"):
        expected_sharpness(surface, 0.1, num_samples=1)
