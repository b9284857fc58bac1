from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from nets import Remembers, assert_leaves_net_untouched, mlp
from surfaces import batch, quadratic, surface_of
from torch import Tensor, nn

from loss_landscape import (
    Evaluation,
    Grid,
    HessianOperator,
    LossSurface,
    eigenpairs,
    evaluate_grid,
    hessian_directions,
    random_directions,
    sam_sharpness,
    trajectory_directions,
)

KEYS = {
    *("kind", "resolution", "span", "coordinates", "direction_norms", "origin_norm", "relative_span", "normalization", "cosine"),
    *("excluded", "baseline_loss", "centre_difference", "noise_floor", "num_nonfinite", "num_evaluated", "strategy", "chunk"),
    *("dtype", "seconds", "versions", "num_cells", "tolerance", "compiled", "precision", "precision_error", "strategy_note"),
}


# What the cells are


@pytest.mark.parametrize("resolution", [5, 6])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_quadratic_bowl_is_its_closed_form(resolution, count):
    surface = quadratic([3.0, -2.0, 1.0, 4.0])
    axes = tuple(torch.eye(4, dtype=torch.float64)[:count])
    grid = evaluate_grid(surface, axes, resolution, ((-1.0, 2.0), (0.5, 1.5), (-3.0, 0.0))[:count])
    places = [np.linspace(-1, 2, resolution), np.linspace(0.5, 1.5, resolution), np.linspace(-3, 0, resolution)][:count]
    terms = zip([3, -2, 1], [1, 0, 0], np.meshgrid(*places, indexing="ij"), strict=False)
    np.testing.assert_allclose(grid.losses, 0.5 * sum(c * (at + x) ** 2 for c, at, x in terms), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_a_quadratic_loss_is_under_its_chord_by_the_curvature(seed):
    """On the straight path between two points, L − chord = −½t(1−t)ΔᵀHΔ."""
    draw = torch.Generator().manual_seed(seed)
    curvatures = torch.randn(6, generator=draw, dtype=torch.float64)
    surface = quadratic(curvatures.tolist())
    step = torch.randn(6, generator=draw, dtype=torch.float64)
    line = evaluate_grid(surface, (step,), 21, (0.0, 1.0))
    (t,) = line.coordinates
    chord = (1 - t) * line.losses[0] + t * line.losses[-1]
    curved = float(step @ (curvatures * step))
    np.testing.assert_allclose(line.losses - chord, -0.5 * t * (1 - t) * curved, rtol=1e-9, atol=1e-12)
    assert HessianOperator(surface) @ step @ step == pytest.approx(curved, rel=1e-12)


def test_curvature_along_hessian_axes_is_the_eigenvalues():
    surface = quadratic([3.0, -2.0, 1.0, 0.5])
    pairs = eigenpairs(HessianOperator(surface), 2, 1, tolerance=1e-10)
    axes = hessian_directions(surface, pairs, choice="extremes")
    losses = evaluate_grid(surface, axes, 3, (-0.5, 0.5)).losses
    curved = [
        (losses[0, 1] - 2 * losses[1, 1] + losses[2, 1]) / 0.25,
        (losses[1, 0] - 2 * losses[1, 1] + losses[1, 2]) / 0.25,
    ]
    assert curved == pytest.approx(axes.info.eigenvalues, rel=1e-9)


def test_rows_are_aligned_and_coordinates_are_what_is_applied():
    """Walked grids zig-zag: odd rows are a step off; others rescale the axes and label the plot as before."""
    surface = surface_of()
    axes = random_directions(surface)
    grid = evaluate_grid(surface, axes, 5)
    for i, alpha in enumerate(grid.coordinates[0]):
        for j, beta in enumerate(grid.coordinates[1]):
            there = float(surface.losses(displacements=(alpha * axes[0] + beta * axes[1])[None]))
            assert grid.losses[i, j] == pytest.approx(there, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("resolution", [2, 3, 4, 11, 41, 50, 51])
def test_coordinates_are_uniform_symmetric_and_exact(resolution):
    surface = quadratic([1.0, 1.0])
    axis = evaluate_grid(surface, (surface.origin,), resolution, (-0.3, 0.3)).coordinates[0]
    assert np.array_equal(axis, -axis[::-1])
    assert (axis[0], axis[-1]) == (-0.3, 0.3)
    np.testing.assert_allclose(np.diff(axis), 0.6 / (resolution - 1), rtol=1e-12)
    assert (resolution % 2 == 1) == (0.0 in axis)


def test_a_double_well_has_its_two_minima():
    class Well(nn.Module):
        def __init__(self):
            super().__init__()
            self.x = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    surface = LossSurface(Well(), batches=[0], batch_loss=lambda model, _: (model.x.square() - 1).square().sum())
    losses = evaluate_grid(surface, (torch.ones(1, dtype=torch.float64),), 41, (-1.5, 1.5)).losses
    inner = losses[1:-1]
    minima = np.flatnonzero((inner < losses[:-2]) & (inner < losses[2:])) + 1
    assert minima.tolist() == [7, 33]
    assert losses[20] - losses[minima].max() == pytest.approx(1, abs=0.01)


# The centre


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_centre_is_the_surfaces_own_loss_and_the_paths_value_agrees(dtype):
    surface = surface_of(dtype=dtype)
    for evaluate, value in (
        (lambda axes: evaluate_grid(surface, axes, 5), surface.loss()),
        (lambda axes: evaluate_grid(surface, axes, 5, rho=0.1), surface.loss() + sam_sharpness(surface, 0.1)),
    ):
        grid = evaluate(random_directions(surface))
        assert grid.losses[2, 2] == grid.info.baseline_loss == pytest.approx(value, rel=1e-15)
        bound = 1e-6 + 1e-5 * abs(value) if dtype == torch.float32 else 1e-10
        assert abs(grid.info.centre_difference) <= bound


def test_an_even_grid_has_no_centre():
    surface = surface_of()
    grid = evaluate_grid(surface, random_directions(surface), 4)
    assert grid.info.centre_difference is None
    assert grid.info.baseline_loss == surface.loss()
    assert surface.loss() not in grid.losses


def test_the_origin_is_found_where_the_span_starts_there():
    surface = surface_of()
    grid = evaluate_grid(surface, random_directions(surface), 4, (0.0, 1.0))
    assert grid.losses[0, 0] == surface.loss()
    assert grid.info.centre_difference is not None


# What is told


def test_meta_tells_everything(tmp_path: Path):
    surface = surface_of()
    grid = evaluate_grid(surface, random_directions(surface), 5, (-0.5, 0.5))
    assert grid.meta.keys() >= KEYS
    assert grid.meta["span"] == [[-0.5, 0.5]] * 2
    norms, origin = grid.info.directions.norms, grid.info.directions.origin_norm
    assert grid.meta["relative_span"][0] == pytest.approx([-0.5 * norms[0] / origin, 0.5 * norms[0] / origin])
    assert grid.num_evaluated == 25
    assert grid.info.evaluation.dtype == "float32"
    json.dumps(grid.meta)


def test_given_vectors_are_described_too():
    surface = surface_of()
    grid = evaluate_grid(surface, (torch.ones(surface.size), torch.arange(float(surface.size))), 3)
    assert grid.info.directions.kind == "custom"
    assert 0.8 < grid.info.directions.cosine < 0.9
    assert grid.meta.keys() >= KEYS


def test_a_trajectory_is_told_in_the_planes_coordinates():
    surface = surface_of()
    draw = torch.Generator().manual_seed(0)
    path = [surface.origin + step * torch.randn(surface.size, generator=draw) for step in (0.2, 0.1, 0.05)] + [surface.origin]
    grid = evaluate_grid(surface, trajectory_directions(surface, path), 3)
    assert grid.info.directions.kind == "trajectory"
    assert len(grid.info.directions.explained_variance) == 2
    assert [set(point) for point in grid.meta["trajectory"]] == [{"step", "alpha", "beta", "residual"}] * 4


def test_the_noise_floor_is_the_error_against_float64():
    surface = surface_of()
    axes = random_directions(surface)
    grid = evaluate_grid(surface, axes, 9, evaluation=Evaluation(noise_cells=16))
    exact = evaluate_grid(surface.in_dtype(torch.float64), axes, 9)
    reasons = [row["why"] for row in grid.meta["noise"]]
    assert reasons.count("centre") == 1
    assert 16 <= len(reasons) <= 20
    for row in grid.meta["noise"]:
        i, j = row["cell"]
        assert row["float64"] == pytest.approx(exact.losses[i, j], rel=1e-12)
        assert row["loss"] == grid.losses[i, j]
        assert row["absolute_error"] == abs(row["loss"] - row["float64"])
    assert grid.info.noise.floor == max(row["absolute_error"] for row in grid.meta["noise"])
    assert 0 < grid.info.noise.floor < 1e-5
    assert exact.info.noise.floor is None


def test_the_check_against_float64_can_be_smaller_or_left_out_and_is_small_by_rule():
    surface = surface_of()
    axes = random_directions(surface)
    assert 4 <= len(evaluate_grid(surface, axes, 9).meta["noise"]) <= 8
    images = torch.randn(8, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    convnet = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(32, 3))
    slow = LossSurface(convnet, nn.CrossEntropyLoss(), [(images, torch.arange(8) % 3)])
    assert len(evaluate_grid(slow, random_directions(slow), 9).meta["noise"]) <= 2
    assert len(evaluate_grid(surface, axes, 9, evaluation=Evaluation(noise_cells=2)).meta["noise"]) <= 6
    counts = {side: len(evaluate_grid(surface, axes, side).meta["noise"]) for side in (21, 41)}
    assert 3 <= counts[21] <= 4  # of which each takes as long as ten cells: within 8 % of the whole
    assert 5 <= counts[41] <= 6
    without = evaluate_grid(surface, axes, 9, evaluation=Evaluation(noise_cells=0))
    assert (without.meta["noise"], without.info.noise.floor) == ([], None)


def test_bfloat16_tells_its_error_against_cells_in_the_surfaces_own_dtype():
    surface = surface_of()
    axes = random_directions(surface)
    grid, exact = evaluate_grid(surface, axes, 9, evaluation=Evaluation(precision="bfloat16")), evaluate_grid(surface, axes, 9)
    places = tuple(zip(*(row["cell"] for row in grid.meta["noise"]), strict=True))
    errors = np.abs(grid.losses - exact.losses)[places]
    told = grid.meta["precision_error"]
    assert told["num_cells"] == len(errors) >= 6
    assert told["absolute"] == pytest.approx(errors.max(), rel=1e-3)
    assert told["relative"] == pytest.approx((errors / exact.losses[places]).max(), rel=1e-3)
    assert 1e-5 < told["relative"] < 0.05
    assert grid.info.noise.floor == pytest.approx(errors.max(), rel=1e-2)
    assert (grid.info.evaluation.precision, exact.info.evaluation.precision) == ("bfloat16", None)
    assert exact.info.noise.precision_error is None


def test_the_centre_of_a_bfloat16_grid_does_not_stand_out_by_being_exact():
    surface = surface_of()
    grid = evaluate_grid(surface, random_directions(surface), 9, evaluation=Evaluation(precision="bfloat16"))
    assert grid.losses[4, 4] - surface.loss() == grid.info.centre_difference != 0


def test_the_noise_of_a_predicted_grid_is_that_of_cells_it_evaluated():
    surface = surface_of(mlp(width=12))
    grid = evaluate_grid(surface, random_directions(surface), 41, tolerance=0.01)
    assert not grid.evaluated.all()
    assert all(grid.evaluated[tuple(row["cell"])] for row in grid.meta["noise"])


def test_a_net_that_can_not_run_in_float64_has_no_noise_floor():
    class Single(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) @ torch.eye(3, dtype=torch.float32)

    grid_surface = surface_of(Single(6, 3))
    grid = evaluate_grid(grid_surface, random_directions(grid_surface), 3)
    assert grid.info.noise.floor is None
    assert "Double" in grid.meta["noise_note"] or "double" in grid.meta["noise_note"]


def test_cells_that_are_not_finite_stay_and_are_counted():
    class Walled(nn.Module):
        def __init__(self):
            super().__init__()
            self.x = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    surface = LossSurface(Walled(), batches=[0], batch_loss=lambda model, _: (model.x[0] + 0.5).log() + model.x[1])
    grid = evaluate_grid(surface, tuple(torch.eye(2, dtype=torch.float64)), 5)
    assert np.isnan(grid.losses[0]).all()
    assert np.isneginf(grid.losses[1]).all()
    assert np.isfinite(grid.losses[2:]).all()
    assert grid.num_nonfinite == 10


def test_a_diverged_net_has_a_plane_of_nan():
    net = mlp()
    with torch.no_grad():
        net[0].weight.fill_(float("nan"))
    surface = surface_of(net)
    grid = evaluate_grid(surface, random_directions(surface), 3)
    assert grid.num_nonfinite == 9


def test_the_grids_of_a_few_batches_are_those_of_one():
    net, (inputs, targets) = mlp().double(), batch()
    inputs = inputs.double()
    one = LossSurface(net, nn.CrossEntropyLoss(), [(inputs, targets)])
    uneven = list(zip(inputs.split(12), targets.split(12), strict=True))
    several = LossSurface(net, nn.CrossEntropyLoss(), uneven)
    axes = random_directions(one)
    for evaluate in (evaluate_grid, lambda surface, given, side: evaluate_grid(surface, given, side, rho=0.1)):
        np.testing.assert_allclose(evaluate(several, axes, 5).losses, evaluate(one, axes, 5).losses, rtol=1e-12)


def test_the_net_is_left_untouched():
    net = Remembers().train()
    with assert_leaves_net_untouched(net):
        surface = surface_of(net)
        axes = random_directions(surface)
        evaluate_grid(surface, axes, 3)
        evaluate_grid(surface, axes, 3, rho=0.1)


# Saved


def test_a_saved_grid_can_be_loaded(tmp_path: Path):
    surface = surface_of()
    grid = evaluate_grid(surface, random_directions(surface), 3)
    grid.save(tmp_path / "planes" / "random")
    assert sorted(p.name for p in (tmp_path / "planes" / "random").iterdir()) == ["grid.csv", "grid.npy", "meta.json"]
    loaded = Grid.load(tmp_path / "planes" / "random")
    assert np.array_equal(loaded.losses, grid.losses)
    assert all(np.array_equal(a, b) for a, b in zip(loaded.coordinates, grid.coordinates, strict=True))
    assert loaded.meta == json.loads(json.dumps(grid.meta))
    lines = (tmp_path / "planes" / "random" / "grid.csv").read_text().splitlines()
    assert lines[0] == "i,j,alpha,beta,loss"
    assert lines[6] == f"1,2,0.0,1.0,{float(grid.losses[1, 2])!r}"
    assert len(lines) == 10


@pytest.mark.parametrize("count", [1, 3])
def test_lines_and_volumes_can_be_saved_and_loaded(tmp_path: Path, count):
    surface = quadratic([3.0, -2.0, 1.0])
    grid = evaluate_grid(surface, tuple(torch.eye(3, dtype=torch.float64)[:count]), 4)
    grid.save(tmp_path)
    loaded = Grid.load(tmp_path)
    assert loaded.losses.shape == (4,) * count
    assert np.array_equal(loaded.losses, grid.losses)
    assert all(np.array_equal(a, b) for a, b in zip(loaded.coordinates, grid.coordinates, strict=True))
    lines = (tmp_path / "grid.csv").read_text().splitlines()
    assert lines[0] == {1: "i,alpha,loss", 3: "i,j,k,alpha,beta,gamma,loss"}[count]
    assert len(lines) == 1 + 4**count
    assert lines[-1].split(",")[:count] == ["3"] * count


def test_predicted_cells_are_marked_in_what_is_saved(tmp_path: Path):
    evaluated = np.array([[True, False], [True, True]])
    axis = np.array([0.0, 1.0])
    grid = Grid(np.arange(4.0).reshape(2, 2), (axis, axis), {"coordinates": [[0.0, 1.0]] * 2}, evaluated)
    grid.save(tmp_path)
    assert np.array_equal(Grid.load(tmp_path).evaluated, evaluated)
    lines = (tmp_path / "grid.csv").read_text().splitlines()
    assert lines == [
        "i,j,alpha,beta,loss,evaluated",
        "0,0,0.0,0.0,0.0,1",
        "0,1,0.0,1.0,1.0,0",
        "1,0,1.0,0.0,2.0,1",
        "1,1,1.0,1.0,3.0,1",
    ]
    Grid(grid.losses, grid.coordinates, grid.meta).save(tmp_path)
    assert Grid.load(tmp_path).evaluated.all(), "the marks of an older grid are gone"


# Options


EVALUATIONS = {
    "compile": ("yes", "compile must be 'auto', True or False"),
    "precision": ("float16", "precision must be 'bfloat16', or None"),
    "chunk": (0, "chunk must be ≥ 1"),
    "noise_cells": (-1, "noise_cells must be ≥ 0, got -1"),
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_an_evaluation_that_is_none_is_refused(name):
    value, message = EVALUATIONS[name]
    with pytest.raises(ValueError, match=message):
        Evaluation(**{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 1}, "resolution must be ≥ 2, got 1"),
        ({"span": (1.0, -1.0)}, "span must be finite with low < high"),
        ({"span": (0.1, 0.1)}, "span must be finite with low < high"),
        ({"span": ((-1, 1),)}, "such a pair for each of the 2 directions"),
        ({"span": "wide"}, "such a pair for each of the 2 directions, x for .-x, x., 'auto' or AutoSpan.…., got 'wide'"),
        ({"span": None}, "span must be .low, high., .* got None"),
        ({"span": (1.0, 2.0, 3.0)}, r"span must be .low, high., .* got \(1.0, 2.0, 3.0\)"),
        ({"span": 0.0}, r"span must be finite with low < high, got \(-0.0, 0.0\)"),
        ({"span": math.nan}, "span must be finite with low < high"),
        ({"resolution": 5.0}, "resolution must be an int, or one for each of the 2 directions, got 5.0"),
        ({"resolution": True}, "resolution must be an int, or one for each of the 2 directions, got True"),
        ({"resolution": (5, 7, 9)}, r"resolution must be an int, or one for each of the 2 directions, got \(5, 7, 9\)"),
        ({"resolution": (5, 1)}, r"resolution must be ≥ 2, got \(5, 1\)"),
        ({"rho": -0.1}, "rho must be finite and ≥ 0, got -0.1"),
        ({"tolerance": 1.5}, "tolerance must be between 0 and 1, or None"),
        ({"tolerance": 0.0}, "tolerance must be between 0 and 1, or None"),
    ],
)
def test_bad_options_are_refused(options, message):
    surface = quadratic([1.0, 1.0])
    with pytest.raises(ValueError, match=message):
        evaluate_grid(surface, tuple(torch.eye(2, dtype=torch.float64)), **options)


def test_sides_may_have_cells_of_their_own():
    surface = quadratic([3.0, -2.0])
    axes = tuple(torch.eye(2, dtype=torch.float64))
    grid = evaluate_grid(surface, axes, (5, 7), ((-1, 1), (0, 3)))
    alpha, beta = np.meshgrid(np.linspace(-1, 1, 5), np.linspace(0, 3, 7), indexing="ij")
    np.testing.assert_allclose(grid.losses, 0.5 * (3 * (1 + alpha) ** 2 - 2 * beta**2), rtol=1e-12, atol=1e-12)
    assert grid.meta["resolution"] == [5, 7]
    assert grid.meta["num_cells"] == 35
    fine = evaluate_grid(surface, axes, (81, 41), tolerance=0.01)
    assert 0 < fine.num_evaluated < 81 * 41
    np.testing.assert_allclose(fine.losses, evaluate_grid(surface, axes, (81, 41)).losses, rtol=0.01, atol=1e-9)


@pytest.mark.parametrize("span", [0.5, 1, np.float64(2.0)])
def test_a_number_is_a_span_about_the_origin(span):
    surface = quadratic([1.0, 1.0])
    grid = evaluate_grid(surface, torch.eye(2, dtype=torch.float64), 3, span)
    assert grid.span == ((-span, span),) * 2
