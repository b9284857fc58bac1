"""Grids and what is known of them: made by hand, read by name, saved and read again."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from surfaces import surface_of

from loss_landscape import DirectionInfo, Directions, Estimate, Grid, GridInfo, evaluate_grid, merge_tree, random_directions
from loss_landscape.results.info import CheckedCell, FloatNoise, LevelErrors, PlanePoint, PrecisionError, SpanSearch, StrategyInfo

AXIS = np.linspace(-1.0, 1.0, 5)
BOWL = np.add.outer(AXIS**2, AXIS**2)

CHECKED = CheckedCell((0, 1), "random", 1.0, 1.0 + 1e-7, 1e-7, 1e-7)
EVERYTHING = GridInfo(
    directions=DirectionInfo(
        "trajectory",
        norms=(2.0, 5.0),
        origin_norm=10.0,
        cosine=0.1,
        normalization="filter",
        excluded=("0.bias",),
        filter_norm_error=1e-3,
        eigenvalues=(3.0, 1.0),
        eigenvalue_residuals=(1e-4, 1e-5),
        points=(PlanePoint((0.0, 0.0)), PlanePoint((1.0, 0.0))),
        trajectory=(PlanePoint((0.5, 0.25), step=3, residual=0.1, loss=1.0, plane_loss=2.0),),
        centred_on="mean",
        explained_variance=(0.9, 0.05),
        num_control_points=3,
    ),
    baseline_loss=0.5,
    centre_difference=1e-8,
    rho=0.05,
    span_found=SpanSearch(3.0, True, ((0.5, 1.0), (1.0, 4.0))),
    noise=FloatNoise(
        1e-7, (CheckedCell((0, 1), "random", 1.0, 1.0 + 1e-7, 1e-7, 1e-7),), "float32", "why", PrecisionError(1, 2, 3)
    ),
    tolerance=0.01,
    refinement=(LevelErrors(21, 0.1, 0.2, 64),),
    largest_held_out_error=0.2,
    evaluation=StrategyInfo("vectorized", "", 64, False, None, "float32", "by targets", {"torch": "2"}),
    seconds=3.5,
    extra={"batch_norm": "running statistics"},
)


def test_a_grid_made_by_hand_knows_what_follows_from_its_arrays(tmp_path: Path):
    grid = Grid(BOWL, (AXIS, AXIS))
    assert (grid.span, grid.resolution, grid.centre_loss) == (((-1.0, 1.0),) * 2, (5, 5), 0.0)
    assert (grid.num_evaluated, grid.num_nonfinite) == (25, 0)
    assert grid.info.baseline_loss is None
    grid.save(tmp_path)
    loaded = Grid.load(tmp_path)
    assert loaded.info == grid.info
    assert np.array_equal(loaded.losses, grid.losses)
    assert merge_tree(grid).num_minima() == 1
    assert Grid(BOWL.tolist(), [AXIS.tolist()] * 2).losses.dtype == np.float64


def test_a_grid_without_a_cell_at_the_origin_has_no_centre():
    grid = Grid(BOWL, (AXIS + 3, AXIS))
    assert grid.centre_loss is None
    assert replace(grid, info=GridInfo(baseline_loss=2.0)).centre_loss == 2.0


def test_shapes_that_do_not_fit_are_answered():
    with pytest.raises(ValueError, match=r"a dimension for each axis, got \[5, 5\] and axes of \[\[5\]\]"):
        Grid(BOWL, (AXIS,))
    with pytest.raises(ValueError, match=r"got \[5, 5\] and axes of \[\[5\], \[4\]\]"):
        Grid(BOWL, (AXIS, AXIS[1:]))


def test_all_that_is_known_of_a_grid_survives_json():
    assert GridInfo.from_json(json.loads(json.dumps(EVERYTHING.to_json()))) == EVERYTHING
    assert GridInfo.from_json(GridInfo().to_json()) == GridInfo()
    assert GridInfo.from_json({}) == GridInfo()


def test_all_that_is_known_of_a_grid_survives_arrays_and_files(tmp_path: Path):
    grid = Grid(BOWL, (AXIS, AXIS), EVERYTHING, BOWL < 1.5)
    grid.save(tmp_path)
    for again in (Grid.load(tmp_path), Grid.from_arrays(grid.to_arrays()), Grid(BOWL, (AXIS, AXIS), grid.meta, grid.evaluated)):
        assert again.info == EVERYTHING
        assert np.array_equal(again.losses, BOWL)
        assert np.array_equal(again.evaluated, BOWL < 1.5)
        assert again.meta == grid.meta


DAMAGE = {
    "grid.npy cut off": lambda folder: (folder / "grid.npy").write_bytes((folder / "grid.npy").read_bytes()[:-9]),
    "grid.npy empty": lambda folder: (folder / "grid.npy").write_bytes(b""),
    "grid.npy a text": lambda folder: (folder / "grid.npy").write_text("hello"),
    "meta.json cut off": lambda folder: (folder / "meta.json").write_text('{"coordinates": [['),
    "meta.json another's": lambda folder: (folder / "meta.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_grid_is_told(tmp_path: Path, damage):
    Grid(np.zeros((3, 3)), (np.arange(3.0), np.arange(3.0))).save(tmp_path / "plane")
    DAMAGE[damage](tmp_path / "plane")
    with pytest.raises(ValueError, match="plane holds no whole grid: a file in it is cut off, or another's"):
        Grid.load(tmp_path / "plane")


def test_a_grid_is_kept_in_a_folder_and_all_else_in_a_file(tmp_path: Path):
    grid = Grid(np.zeros(3), (np.arange(3.0),))
    Estimate(1.0, 0.5, 3).save(tmp_path / "estimate.npz")
    with pytest.raises(FileExistsError, match=r"estimate\.npz is a file; a grid is saved into a folder, which is made"):
        grid.save(tmp_path / "estimate.npz")
    grid.save(tmp_path / "plane")
    with pytest.raises(IsADirectoryError, match="plane is a folder, which only a grid is kept in: Grid.load"):
        Estimate.load(tmp_path / "plane")
    with pytest.raises(IsADirectoryError, match="is a folder; give a file in it"):
        Estimate(1.0, 0.5, 3).save(tmp_path)


def test_the_span_beside_the_parameters_is_known_where_the_norms_are():
    info = GridInfo(DirectionInfo(norms=(3.0,), origin_norm=2.0))
    assert Grid(np.zeros(2), (np.array([-1.0, 2.0]),), info).relative_span == ((-1.5, 3.0),)
    assert Grid(np.zeros(2), (np.array([-1.0, 2.0]),)).relative_span is None


def test_a_mistyped_name_is_an_error_at_its_reader():
    grid = Grid(BOWL, (AXIS, AXIS), EVERYTHING)
    with pytest.raises(AttributeError):
        grid.info.baseline  # noqa: B018
    with pytest.raises(TypeError):
        replace(grid.info, noise_flor=1.0)


def test_what_an_evaluated_grid_tells_is_what_its_meta_holds():
    surface = surface_of()
    grid = evaluate_grid(surface, random_directions(surface), 5)
    assert grid.info.baseline_loss == grid.meta["baseline_loss"] == surface.loss()
    assert grid.info.directions.norms == tuple(grid.meta["direction_norms"])
    assert grid.info.noise.floor == grid.meta["noise_floor"]
    assert [list(cell.cell) for cell in grid.info.noise.checked] == [row["cell"] for row in grid.meta["noise"]]
    assert GridInfo.from_json(grid.meta) == grid.info


@pytest.mark.parametrize("shape", [(5,), (5, 3), (2, 3, 4)])
def test_a_table_has_a_row_for_each_cell(monkeypatch, shape):
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=dict))
    axes = tuple(np.linspace(-1, 1, size) for size in shape)
    losses = np.arange(float(np.prod(shape))).reshape(shape)
    table = Grid(losses, axes).to_pandas()
    assert [*table] == [*("alpha", "beta", "gamma")[: len(shape)], "loss", "evaluated"]
    assert {len(column) for column in table.values()} == {losses.size}
    assert (table["alpha"][-2], table["loss"][-2]) == (1.0 if len(shape) > 1 else 0.5, losses.reshape(-1)[-2])


def test_reprs_are_a_line():
    assert repr(Grid(BOWL, (AXIS, AXIS))) == "Grid(5×5, loss 0…2, centre 0, custom)"
    several = Grid(np.where(BOWL < 1.5, BOWL, np.inf), (AXIS, AXIS), EVERYTHING, BOWL < 2)
    assert repr(several) == ("Grid(5×5, loss 0…1.25, centre 0.5, trajectory, ρ 0.05, noise 1e-07, 4 not finite, 21 evaluated)")
    assert repr(Grid(np.array([np.nan]), (np.array([0.5]),))) == "Grid(1, no finite loss, custom, 1 not finite)"


def test_directions_made_by_hand_know_their_norms_and_their_cosine():
    axes = Directions((torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])))
    assert axes.info.norms == (5.0, 2.0)
    assert axes.info.cosine == pytest.approx(0.8)
    assert axes.info.origin_norm is None
    assert axes.info.relative_norms is None
    assert axes[0] is axes.vectors[0]
    assert len(axes[:1]) == 1


def test_results_do_not_import_pictures_or_tables():
    code = "import loss_landscape.results.grid, sys; print([m for m in ('matplotlib', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
