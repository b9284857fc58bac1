"""The affine drift: what is sampled where, and that bounded images stay in view."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from taskshift.data.synthetic_images import synthetic_images
from taskshift.shifts.affine_drift import LinearDrift, RandomWalkDrift, SinusoidalDrift, random_start, reflected
from taskshift.shifts.continuous_input_deformation import AffineView, ContinuousInputDeformation
from tests.framework.shift_assertions import DEVICES, shown

DRIFTS = ["linear", "random_walk", "sinusoidal"]
SEEDS = range(20)


def share_inside(theta):
    """The share of a 28×28 image's pixels that are sampled from within the frame."""
    grid = F.affine_grid(theta[None], [1, 1, 28, 28], align_corners=False)
    return (grid.abs() <= 1).all(dim=-1).double().mean().item()


def inside(index, **settings):
    return [share_inside(ContinuousInputDeformation(seed, **settings).theta(index)) for seed in SEEDS]


@pytest.mark.parametrize("drift_mode", DRIFTS)
@pytest.mark.parametrize("index", [0, 100, 500])
def test_bounded_images_stay_in_view(drift_mode, index):
    shares = inside(index, drift_mode=drift_mode)
    assert np.mean(shares) > 0.8
    assert min(shares) > 0.6


@pytest.mark.parametrize("index", [100, 500])
def test_bounds_hold_for_steps_as_large_as_the_predecessors(index):
    assert np.mean(inside(index, random_walk=RandomWalkDrift(0.1))) > 0.8
    assert np.mean(inside(index, drift_mode="linear", linear=LinearDrift(0.5))) > 0.8
    assert np.mean(inside(index, drift_mode="sinusoidal", sinusoidal=SinusoidalDrift(5.0, 0.1))) > 0.7


@pytest.mark.parametrize("index", [100, 500, 2000])
@pytest.mark.parametrize("drift_mode", DRIFTS)
def test_bounded_maps_are_never_near_singular(drift_mode, index):
    for seed in SEEDS:
        theta = ContinuousInputDeformation(seed, drift_mode=drift_mode, limit=0.2).theta(index)
        singular = torch.linalg.svdvals(theta[:, :2])
        assert singular.min() >= 0.6 - 1e-12
        assert singular.max() <= 1.4 + 1e-12
        assert theta[:, 2].abs().max() <= 0.2 + 1e-12


def test_unbounded_the_images_leave_the_frame():
    """The predecessor's walk of 0.1 and line of 0.5: what it then called lost plasticity was blank images."""
    walk = {"random_walk": RandomWalkDrift(0.1), "bounded": False}
    assert np.mean(inside(100, **walk)) < 0.45
    assert np.mean(inside(500, **walk)) < 0.15
    line = {"drift_mode": "linear", "linear": LinearDrift(0.5), "bounded": False}
    assert np.mean(inside(10, **line)) < 0.1
    wave = ContinuousInputDeformation(0, "sinusoidal", sinusoidal=SinusoidalDrift(0.5, 0.05), bounded=False)
    assert min(torch.linalg.det(wave.theta(index)[:, :2]) for index in range(120)) < 0.01, "collapses to a line near task 94"


def test_linear_steps_have_the_given_length_and_one_direction():
    shift = ContinuousInputDeformation(3, "linear", linear=LinearDrift(0.5), bounded=False)
    thetas = [shift.theta(index) for index in range(4)]
    steps = [after - before for before, after in zip(thetas, thetas[1:], strict=False)]
    for step in steps:
        torch.testing.assert_close(step.norm().item(), 0.5)
        torch.testing.assert_close(step, steps[0])
    start = thetas[0] - steps[0] - torch.eye(2, 3)
    torch.testing.assert_close(start, random_start(3, 0.1))
    assert start.abs().max() <= 0.1


def test_random_walk_steps_are_normal_and_independent():
    """Variance and correlation of 4800 entries' steps, within four standard errors, for three seeds."""
    for seed in range(3):
        shift = ContinuousInputDeformation(seed, random_walk=RandomWalkDrift(0.1), bounded=False)
        thetas = torch.stack([shift.theta(index) for index in range(801)])
        steps = (thetas[1:] - thetas[:-1]).reshape(800, 6) / 0.1
        assert abs(steps.mean()) < 4 / math.sqrt(4800)
        assert abs(steps.var() - 1) < 4 * math.sqrt(2 / 4800)
        assert abs((steps[1:] * steps[:-1]).mean()) < 4 / math.sqrt(4794)


def test_sinusoid_is_the_formula():
    shift = ContinuousInputDeformation(0, "sinusoidal", sinusoidal=SinusoidalDrift(0.15, 0.3), shift_first_task=False)
    for index in (0, 1, 7):
        expected = np.eye(2, 3) + 0.15 * math.sin(0.3 * index)
        np.testing.assert_allclose(shift.theta(index).numpy(), expected, atol=1e-15)


@pytest.mark.parametrize("drift_mode", DRIFTS)
def test_from_an_unshifted_first_task_the_drift_starts_at_the_identity(drift_mode):
    for seed in SEEDS:
        shift = ContinuousInputDeformation(seed, drift_mode, shift_first_task=False)
        assert torch.equal(shift.theta(0), torch.eye(2, 3, dtype=torch.float64))
        assert (shift.theta(1) - shift.theta(0)).norm() < 5 * 0.05 * math.sqrt(6), "a jump at task 1"


def test_starts_and_directions_are_uniform_around_zero():
    """Means of 1200 entries within four standard errors."""
    for draws in (
        torch.stack([random_start(seed, 1.0) for seed in range(200)]),
        torch.stack([LinearDrift(1.0).offset(seed, torch.zeros(2, 3))(1) for seed in range(200)]),
    ):
        assert abs(draws.mean()) < 4 * draws.std() / math.sqrt(1200)


@pytest.mark.parametrize("drift_mode", DRIFTS)
def test_going_back_gives_the_same_bits(drift_mode):
    onwards = ContinuousInputDeformation(5, drift_mode)
    thetas = [onwards.theta(index) for index in range(50)]
    jumping = ContinuousInputDeformation(5, drift_mode)
    for index in (49, 3, 30, 0, 30):
        torch.rand(3)
        assert torch.equal(jumping.theta(index), thetas[index])


def test_reflection_is_the_identity_between_the_walls_and_bounces_at_them():
    limit = 0.2
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)
    folded = reflected(x, limit)
    assert folded.abs().max() <= limit + 1e-12
    within = x.abs() <= limit
    torch.testing.assert_close(folded[within], x[within])
    torch.testing.assert_close(
        reflected(torch.tensor([0.25, 0.4, 0.6, -0.3]).double(), limit), torch.tensor([0.15, 0.0, -0.2, -0.1]).double()
    )
    assert reflected(torch.zeros(1), limit) == 0.0


@pytest.fixture(params=DEVICES)
def data(request):
    return synthetic_images(num_classes=3, channels=2, side=9, train_size=12, test_size=6).to(request.param)


def test_view_samples_bilinearly_and_is_black_outside(data):
    """Against a loop over pixels in numpy."""
    theta = torch.tensor([[0.9, 0.3, 0.4], [-0.2, 1.2, -0.1]], dtype=torch.float64)
    indices = torch.arange(4, device=data.device)
    view = AffineView(theta, data)(data.inputs[indices], data.targets[indices], indices).inputs
    expected = sampled(data.inputs[indices].cpu().double().numpy(), theta.numpy(), data.black.cpu().double().numpy())
    np.testing.assert_allclose(view.cpu().numpy(), expected, atol=2e-5)


def sampled(images, theta, black):
    """out(p) = Σ over the four neighbours of θ(p, 1) of weight · pixel, where a pixel off the image is black."""
    side = images.shape[-1]
    result = np.empty_like(images)
    for row, column in np.ndindex(side, side):
        x, y = theta @ [(2 * column + 1) / side - 1, (2 * row + 1) / side - 1, 1]
        u, v = ((x + 1) * side - 1) / 2, ((y + 1) * side - 1) / 2
        total = 0.0
        for i, j in np.ndindex(2, 2):
            at_row, at_column = math.floor(v) + i, math.floor(u) + j
            weight = (1 - abs(v - at_row)) * (1 - abs(u - at_column))
            on_image = 0 <= at_row < side and 0 <= at_column < side
            total = total + weight * (images[:, :, at_row, at_column] if on_image else black)
        result[:, :, row, column] = total
    return result


def test_what_lies_outside_is_the_datas_black(data):
    """The predecessor padded with zeros after normalisation: mid-grey."""
    away = torch.tensor([[1.0, 0.0, 5.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    view = AffineView(away, data)(data.inputs[:2], data.targets[:2], torch.arange(2)).inputs
    assert (data.black != 0).all()
    torch.testing.assert_close(view, data.black[:, None, None].expand_as(view))


def test_all_batches_of_a_task_are_deformed_alike(data):
    task = ContinuousInputDeformation(0).task(data, 3)
    whole = shown(task, data).inputs
    one = shown(task, data, task.train[4:5]).inputs
    torch.testing.assert_close(one, whole[4:5])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drift_mode": "lineer"}, "drift_mode is 'lineer'; it must be one of linear, random_walk, sinusoidal"),
        ({"limit": 0.5}, "limit is 0.5; it must be above 0, and below 0.5"),
        ({"limit": 0.0}, "limit is 0.0"),
    ],
)
def test_bad_values_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ContinuousInputDeformation(0, **settings)


def test_a_negative_step_is_refused():
    with pytest.raises(ValueError, match="drift_std_dev is -0.1; it must be 0 or more"):
        RandomWalkDrift(-0.1)


def test_vectors_are_refused(data):
    vectors = type(data)(**{**vars(data), "inputs": data.inputs.flatten(1)})
    with pytest.raises(ValueError, match=r"inputs of shape \(162,\); only images \[C, H, W\] can be deformed"):
        ContinuousInputDeformation(0).task(vectors, 0)
