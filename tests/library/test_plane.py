from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nets import Remembers, assert_leaves_net_untouched, mlp
from torch import Tensor, nn

from loss_landscape import (
    Directions,
    Grid,
    HessianOperator,
    LossSurface,
    custom_directions,
    eigenpairs,
    evaluate_grid,
    evaluate_sam_grid,
    hessian_directions,
    partial,
    random_directions,
    sam_sharpness,
    trajectory_directions,
)

KEYS = {
    *("kind", "resolution", "span", "coordinates", "direction_norms", "origin_norm", "relative_span", "normalization", "cosine"),
    *("excluded", "baseline_loss", "centre_difference", "noise_floor", "num_nonfinite", "num_evaluated", "path", "chunk"),
    *("dtype", "seconds", "versions"),
}


def batch(count: int = 32) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(count, 6, generator=draw), torch.randint(0, 3, (count,), generator=draw)


def surface_of(net: nn.Module | None = None, **options) -> LossSurface:
    if net is None:
        torch.manual_seed(0)
        net = mlp(width=12, activation=nn.ReLU)
    return LossSurface(net, nn.CrossEntropyLoss(), [batch()], **options)


def quadratic(curvatures: list[float]) -> LossSurface:
    """½ Σ cᵢ(xᵢ − 1)² as a net whose outputs are its parameters, all at 1 but the first, at 2."""

    class Point(nn.Module):
        def __init__(self):
            super().__init__()
            self.x = nn.Parameter(torch.ones(len(curvatures), dtype=torch.float64))
            self.x.data[0] = 2.0

        def forward(self, weights: Tensor) -> Tensor:
            return 0.5 * (weights * (self.x - 1).square()).sum()

    weights = torch.tensor(curvatures, dtype=torch.float64)
    return LossSurface(Point(), batches=[weights], batch_loss=lambda model, given: model(given))


# What the cells are


@pytest.mark.parametrize("resolution", [5, 6])
def test_a_quadratic_bowl_is_its_closed_form(resolution):
    surface = quadratic([3.0, -2.0, 1.0])
    first, second = torch.eye(3, dtype=torch.float64)[:2]
    grid = evaluate_grid(surface, (first, second), resolution, ((-1.0, 2.0), (0.5, 1.5)))
    alpha, beta = np.meshgrid(np.linspace(-1, 2, resolution), np.linspace(0.5, 1.5, resolution), indexing="ij")
    np.testing.assert_allclose(grid.losses, 0.5 * (3 * (1 + alpha) ** 2 - 2 * beta**2), rtol=1e-12, atol=1e-12)


def test_curvature_along_hessian_axes_is_the_eigenvalues():
    surface = quadratic([3.0, -2.0, 1.0, 0.5])
    pairs = eigenpairs(HessianOperator(surface), 2, 1, 1e-10)
    axes = hessian_directions(surface, pairs, "extremes")
    losses = evaluate_grid(surface, axes, 3, (-0.5, 0.5)).losses
    curved = [
        (losses[0, 1] - 2 * losses[1, 1] + losses[2, 1]) / 0.25,
        (losses[1, 0] - 2 * losses[1, 1] + losses[1, 2]) / 0.25,
    ]
    assert curved == pytest.approx(axes.meta["eigenvalues"], rel=1e-9)


def test_rows_are_aligned_and_coordinates_are_what_is_applied():
    """Walked grids zig-zag: odd rows are a step off; others rescale the axes and label the plot as before."""
    surface = surface_of()
    axes = random_directions(surface)
    grid = evaluate_grid(surface, axes, 5)
    for i, alpha in enumerate(grid.coordinates[0]):
        for j, beta in enumerate(grid.coordinates[1]):
            there = float(surface.at((alpha * axes[0] + beta * axes[1])[None]))
            assert grid.losses[i, j] == pytest.approx(there, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("resolution", [2, 3, 4, 11, 41, 50, 51])
def test_coordinates_are_uniform_symmetric_and_exact(resolution):
    surface = quadratic([1.0, 1.0])
    axis = evaluate_grid(surface, (surface.origin,), resolution, (-0.3, 0.3)).coordinates[0]
    assert np.array_equal(axis, -axis[::-1])
    assert (axis[0], axis[-1]) == (-0.3, 0.3)
    np.testing.assert_allclose(np.diff(axis), 0.6 / (resolution - 1), rtol=1e-12)
    assert (resolution % 2 == 1) == (0.0 in axis)


def test_lines_planes_and_volumes():
    surface = quadratic([1.0, 2.0, 4.0])
    axes = torch.eye(3, dtype=torch.float64)
    for count in (1, 2, 3):
        grid = evaluate_grid(surface, tuple(axes[:count]), 3)
        assert grid.losses.shape == (3,) * count
        assert grid.losses.dtype == np.float64
        corner = 0.5 * sum(c * (x - 1) ** 2 for c, x in zip([1, 2, 4][:count], [3, 2, 2], strict=False))
        assert grid.losses[(-1,) * count] == pytest.approx(corner)


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
        (lambda axes: evaluate_sam_grid(surface, axes, 0.1, 5), surface.loss() + sam_sharpness(surface, 0.1)),
    ):
        grid = evaluate(random_directions(surface))
        assert grid.losses[2, 2] == grid.meta["baseline_loss"] == pytest.approx(value, rel=1e-15)
        bound = 1e-6 + 1e-5 * abs(value) if dtype == torch.float32 else 1e-10
        assert abs(grid.meta["centre_difference"]) <= bound


def test_an_even_grid_has_no_centre():
    surface = surface_of()
    grid = evaluate_grid(surface, random_directions(surface), 4)
    assert grid.meta["centre_difference"] is None
    assert grid.meta["baseline_loss"] == surface.loss()
    assert surface.loss() not in grid.losses


def test_the_origin_is_found_where_the_span_starts_there():
    surface = surface_of()
    grid = evaluate_grid(surface, random_directions(surface), 4, (0.0, 1.0))
    assert grid.losses[0, 0] == surface.loss()
    assert grid.meta["centre_difference"] is not None


# What is told


def test_meta_tells_everything(tmp_path: Path):
    surface = surface_of()
    grid = evaluate_grid(surface, random_directions(surface), 5, (-0.5, 0.5))
    assert grid.meta.keys() >= KEYS
    assert grid.meta["span"] == [[-0.5, 0.5]] * 2
    norms, origin = grid.meta["direction_norms"], grid.meta["origin_norm"]
    assert grid.meta["relative_span"][0] == pytest.approx([-0.5 * norms[0] / origin, 0.5 * norms[0] / origin])
    assert grid.meta["num_evaluated"] == 25
    assert grid.meta["dtype"] == "float32"
    json.dumps(grid.meta)


def test_given_vectors_are_described_too():
    surface = surface_of()
    grid = evaluate_grid(surface, (torch.ones(surface.size), torch.arange(float(surface.size))), 3)
    assert grid.meta["kind"] == "custom"
    assert 0.8 < grid.meta["cosine"] < 0.9
    assert grid.meta.keys() >= KEYS


def test_a_trajectory_is_told_in_the_planes_coordinates():
    surface = surface_of()
    draw = torch.Generator().manual_seed(0)
    path = [surface.origin + step * torch.randn(surface.size, generator=draw) for step in (0.2, 0.1, 0.05)] + [surface.origin]
    grid = evaluate_grid(surface, trajectory_directions(surface, path), 3)
    assert grid.meta["kind"] == "trajectory"
    assert len(grid.meta["explained_variance"]) == 2
    assert [set(point) for point in grid.meta["trajectory"]] == [{"step", "alpha", "beta", "residual"}] * 4


def test_the_noise_floor_is_the_error_against_float64():
    surface = surface_of()
    axes = random_directions(surface)
    grid = evaluate_grid(surface, axes, 9)
    exact = evaluate_grid(surface.in_dtype(torch.float64), axes, 9)
    reasons = [row["why"] for row in grid.meta["noise"]]
    assert reasons.count("centre") == 1
    assert 16 <= len(reasons) <= 20
    for row in grid.meta["noise"]:
        i, j = row["cell"]
        assert row["float64"] == pytest.approx(exact.losses[i, j], rel=1e-12)
        assert row["loss"] == grid.losses[i, j]
        assert row["absolute_error"] == abs(row["loss"] - row["float64"])
    assert grid.meta["noise_floor"] == max(row["absolute_error"] for row in grid.meta["noise"])
    assert 0 < grid.meta["noise_floor"] < 1e-5
    assert exact.meta["noise_floor"] is None


def test_a_net_that_can_not_run_in_float64_has_no_noise_floor():
    class Single(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) @ torch.eye(3, dtype=torch.float32)

    grid_surface = surface_of(Single(6, 3))
    grid = evaluate_grid(grid_surface, random_directions(grid_surface), 3)
    assert grid.meta["noise_floor"] is None
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
    assert grid.meta["num_nonfinite"] == 10


def test_a_diverged_net_has_a_plane_of_nan():
    net = mlp()
    with torch.no_grad():
        net[0].weight.fill_(float("nan"))
    surface = surface_of(net)
    grid = evaluate_grid(surface, random_directions(surface), 3)
    assert grid.meta["num_nonfinite"] == 9


# Paths


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.net(x)
        return outputs if outputs.mean() > 0 else 2 * outputs


class Clamps(nn.Module):
    """Writes to its own parameter, as a net that keeps its weights within bounds does."""

    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor) -> Tensor:
        self.net[0].weight.data.clamp_(-0.1, 0.1)
        return self.net(x)


@pytest.mark.parametrize("kind", [Branches, Clamps])
def test_a_net_that_can_not_be_batched_is_evaluated_point_by_point(kind):
    net = kind()
    with assert_leaves_net_untouched(net):
        surface = surface_of(net)
        assert surface.grid_path().name == "vmap"
        axes = random_directions(surface)
        grid = evaluate_grid(surface, axes, 3)
    for i, alpha in enumerate((-1, 0, 1)):
        for j, beta in enumerate((-1, 0, 1)):
            there = float(surface.at((alpha * axes[0] + beta * axes[1])[None]))
            assert grid.losses[i, j] == pytest.approx(there, rel=1e-5, abs=1e-6)
    if kind is Branches:
        assert grid.meta["path"] == "loop"
        assert grid.meta["path_note"].startswith("batching points failed")


def test_the_path_is_a_function_of_shapes():
    conv = nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    assert surface_of(conv).grid_path().name == "loop"
    small, again = surface_of(), surface_of()
    assert small.grid_path() == again.grid_path()
    assert small.grid_path().name == "vmap"
    wide = LossSurface(mlp(width=4096), nn.CrossEntropyLoss(), [batch(256)])
    assert wide.grid_path().name == "loop"


def test_the_grids_of_a_few_batches_are_those_of_one():
    net, (inputs, targets) = mlp().double(), batch()
    inputs = inputs.double()
    one = LossSurface(net, nn.CrossEntropyLoss(), [(inputs, targets)])
    uneven = list(zip(inputs.split(12), targets.split(12), strict=True))
    several = LossSurface(net, nn.CrossEntropyLoss(), uneven)
    axes = random_directions(one)
    for evaluate in (evaluate_grid, lambda surface, given, side: evaluate_sam_grid(surface, given, 0.1, side)):
        np.testing.assert_allclose(evaluate(several, axes, 5).losses, evaluate(one, axes, 5).losses, rtol=1e-12)


def test_the_net_is_left_untouched():
    net = Remembers().train()
    with assert_leaves_net_untouched(net):
        surface = surface_of(net)
        axes = random_directions(surface)
        evaluate_grid(surface, axes, 3)
        evaluate_sam_grid(surface, axes, 0.1, 3)


# Interrupted and resumed


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("sam", [False, True])
@pytest.mark.parametrize("calls", [1, 2, 5])
def test_an_interrupted_grid_goes_on_with_the_same_bits(tmp_path: Path, monkeypatch, sam, calls):
    surface = surface_of()
    axes = random_directions(surface)
    name = "sam_along" if sam else "along"

    def evaluate(partial_file: Path | None = None) -> Grid:
        if sam:
            return evaluate_sam_grid(surface, axes, 0.1, 31, partial=partial_file)
        return evaluate_grid(surface, axes, 33, partial=partial_file)

    whole = evaluate()
    original, left = getattr(LossSurface, name), [calls + (2 if sam else 2)]

    def failing(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            raise Interrupted
        return original(*arguments, **options)

    file = tmp_path / "plane.partial"
    monkeypatch.setattr(LossSurface, name, failing)
    with pytest.raises(Interrupted):
        evaluate(file)
    assert file.exists()
    counted = []
    monkeypatch.setattr(LossSurface, name, lambda *given, **options: counted.append(1) or original(*given, **options))
    resumed = evaluate(file)
    assert np.array_equal(resumed.losses, whole.losses)
    assert not file.exists()
    assert resumed.meta["chunk"] == whole.meta["chunk"]
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_grid_keeps_the_stored_chunk_and_path(tmp_path: Path, monkeypatch):
    surface = surface_of()
    axes = random_directions(surface)
    file = tmp_path / "plane.partial"
    original, left = LossSurface.along, [4]

    def failing(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            raise Interrupted
        return original(*arguments, **options)

    monkeypatch.setattr(LossSurface, "along", failing)
    with pytest.raises(Interrupted):
        evaluate_grid(surface, axes, 21, chunk=8, partial=file)
    monkeypatch.setattr(LossSurface, "along", original)
    assert evaluate_grid(surface, axes, 21, partial=file).meta["chunk"] == 8


def test_a_partial_file_of_another_grid_is_not_used(tmp_path: Path, monkeypatch):
    surface, other = surface_of(), surface_of(mlp(width=12, activation=nn.ReLU))
    axes = random_directions(surface)
    file = tmp_path / "plane.partial"
    original, left = LossSurface.along, [4]

    def failing(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            raise Interrupted
        return original(*arguments, **options)

    monkeypatch.setattr(LossSurface, "along", failing)
    with pytest.raises(Interrupted):
        evaluate_grid(surface, axes, 21, partial=file)
    monkeypatch.setattr(LossSurface, "along", original)
    assert not np.array_equal(surface.origin, other.origin)
    expected = evaluate_grid(other, axes, 21)
    assert np.array_equal(evaluate_grid(other, axes, 21, partial=file).losses, expected.losses)


def test_finished_chunks_are_saved_by_the_clock(tmp_path: Path, monkeypatch):
    """A killed process runs no `finally`."""
    monkeypatch.setattr(partial, "SECONDS_BETWEEN_SAVES", 0.0)
    surface = surface_of()
    seen = []
    original = LossSurface.along

    def watching(*arguments, **options):
        seen.append((tmp_path / "plane.partial").exists())
        return original(*arguments, **options)

    monkeypatch.setattr(LossSurface, "along", watching)
    evaluate_grid(surface, random_directions(surface), 21, partial=tmp_path / "plane.partial")
    assert len(seen) > 4
    assert all(seen[3:-1])


def test_losses_of_zero_or_less_count_as_done(tmp_path: Path, monkeypatch):
    """A sentinel value in place of a status computes them again for ever, or never."""
    monkeypatch.setattr(partial, "SECONDS_BETWEEN_SAVES", 0.0)
    surface = quadratic([0.0, -2.0])
    axes = tuple(torch.eye(2, dtype=torch.float64))
    calls, original = [], LossSurface.along

    def failing(self, directions, coordinates, path=None):
        calls.append(len(coordinates))
        if len(calls) == 3:
            raise Interrupted
        return original(self, directions, coordinates, path)

    monkeypatch.setattr(LossSurface, "along", failing)
    file = tmp_path / "plane.partial"
    with pytest.raises(Interrupted):
        evaluate_grid(surface, axes, 9, chunk=16, partial=file)
    calls.extend([0, 0])
    evaluate_grid(surface, axes, 9, chunk=16, partial=file)
    assert sum(calls[:2]) + sum(calls[5:]) == 81


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
    assert lines[6] == f"1,2,0.0,1.0,{grid.losses[1, 2]!r}".replace("np.float64(", "").replace(")", "")
    assert len(lines) == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 1}, "resolution must be ≥ 2, got 1"),
        ({"span": (1.0, -1.0)}, "span must be finite with low < high"),
        ({"span": (0.1, 0.1)}, "span must be finite with low < high"),
        ({"span": ((-1, 1),)}, "such a pair for each of the 2 directions"),
        ({"tolerance": 0.01}, "tolerance must be None"),
        ({"compile": True}, "compile must be 'auto' or False"),
        ({"chunk": 0}, "chunk must be ≥ 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    surface = quadratic([1.0, 1.0])
    with pytest.raises(ValueError, match=message):
        evaluate_grid(surface, tuple(torch.eye(2, dtype=torch.float64)), **options)


def test_one_to_three_directions_are_wanted():
    surface = quadratic([1.0, 1.0])
    with pytest.raises(ValueError, match="expected 1, 2 or 3 directions, got 0"):
        evaluate_grid(surface, ())
    assert isinstance(custom_directions(surface, surface.origin), Directions)
