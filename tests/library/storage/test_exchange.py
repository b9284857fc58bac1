"""Files for other programs, read back by other means than ours."""

from __future__ import annotations

import base64
import csv
import struct
from xml.etree import ElementTree

import duckdb
import numpy as np
import pytest

from loss_landscape import DirectionInfo, Estimate, Grid, GridInfo
from loss_landscape.results.hessian_metrics import HessianMetrics
from loss_landscape.results.trajectory import PathPoint, Trajectory
from loss_landscape.storage.exchange import write_csv, write_npz, write_parquet, write_vti
from loss_landscape.storage.records import LandscapeRecord


def grid_of(dim: int) -> Grid:
    losses = np.random.default_rng(dim).normal(size=(3, 4, 2)[:dim])
    losses.flat[:3] = [np.nan, np.inf, 1 / 3]
    evaluated = np.ones(losses.shape, dtype=bool)
    evaluated.flat[-1] = False
    return Grid(losses, tuple(np.linspace(-0.1, 0.2, side) for side in losses.shape), GridInfo(baseline_loss=1.0), evaluated)


def record_of(dim: int) -> LandscapeRecord:
    points = (PathPoint(0, (0.5, 0.25), 0.1, 2.0, 1.5, train_loss=None), PathPoint(1, (0.0, 0.0), 0.0, 1.0, 1.0, train_loss=1.0))
    path = Trajectory(points, "pca", DirectionInfo("trajectory", norms=(1.0, 1.0)))
    metrics = HessianMetrics((4.0, -1.0), (1e-8, 0.5), (True, False), 1, Estimate(3.5, 0.25, 100), 9)
    return LandscapeRecord({f"{dim}d": grid_of(dim)}, (path,), (metrics,))


def rows_by_hand(grid: Grid) -> list[tuple]:
    return [
        (
            *index,
            *(axis[at] for axis, at in zip(grid.coordinates, index, strict=True)),
            grid.losses[index],
            bool(grid.evaluated[index]),
        )
        for index in np.ndindex(grid.losses.shape)
    ]


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_csv_has_a_row_for_each_cell(tmp_path, dim):
    write_csv(tmp_path / "l.csv", record_of(dim))
    names, *rows = csv.reader((tmp_path / "l.csv").open())
    assert names == [*"ijk"[:dim], *("alpha", "beta", "gamma")[:dim], "loss", "evaluated"]
    for row, wanted in zip(rows, rows_by_hand(grid_of(dim)), strict=True):
        assert [float(cell) for cell in row[:-1]] == pytest.approx(wanted[:-1], rel=0, abs=0, nan_ok=True)
        assert row[-1] == str(wanted[-1])


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_parquet_has_the_same_table(tmp_path, dim):
    write_parquet(tmp_path / "l.parquet", record_of(dim))
    rows = duckdb.sql(f"SELECT * FROM '{tmp_path / 'l.parquet'}'").fetchall()
    for row, wanted in zip(rows, rows_by_hand(grid_of(dim)), strict=True):
        assert row == pytest.approx(wanted, rel=0, abs=0, nan_ok=True)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_vtk_image_data_by_its_specification(tmp_path, dim):
    """Point (i, j, k) is number i + nx·(j + ny·k), at origin + index × spacing; arrays are base64 of a 64-bit length and data."""
    write_vti(tmp_path / "l.vti", record_of(dim))
    image = ElementTree.parse(tmp_path / "l.vti").getroot()
    assert (image.get("type"), image.get("byte_order"), image.get("header_type")) == ("ImageData", "LittleEndian", "UInt64")
    lattice = image.find("ImageData")
    sides = [int(edge) + 1 for edge in lattice.get("WholeExtent").split()[1::2]]
    assert lattice.find("Piece").get("Extent") == lattice.get("WholeExtent")
    origin, spacing = (np.array(lattice.get(name).split(), dtype=float) for name in ("Origin", "Spacing"))
    arrays = {each.get("Name"): each for each in lattice.iter("DataArray")}
    losses = decoded(arrays["loss"], np.float64)
    status = decoded(arrays["status"], np.int32)
    grid = grid_of(dim)
    for index in np.ndindex(grid.losses.shape):
        i, j, k = (*index, 0, 0)[:3]
        number = i + sides[0] * (j + sides[1] * k)
        assert losses[number] == grid.losses[index] or np.isnan(grid.losses[index])
        wanted = -1 if not np.isfinite(grid.losses[index]) else int(grid.evaluated[index])
        assert status[number] == wanted
        for axis, at in enumerate(index):
            assert origin[axis] + at * spacing[axis] == pytest.approx(grid.coordinates[axis][at])
    assert len(losses) == grid.losses.size


def decoded(array: ElementTree.Element, dtype: type) -> np.ndarray:
    content = base64.b64decode(array.text)
    [length] = struct.unpack("<Q", content[:8])
    assert length == len(content) - 8
    return np.frombuffer(content[8:], dtype=dtype)


def test_npz_has_everything_by_name(tmp_path):
    write_npz(tmp_path / "l.npz", record_of(2))
    arrays, grid = np.load(tmp_path / "l.npz"), grid_of(2)
    assert arrays["2d/losses"].tobytes() == grid.losses.tobytes()
    assert np.array_equal(arrays["2d/beta"], grid.coordinates[1])
    assert arrays["trajectory/traj_1"].tolist() == [0.5, 0.0]
    assert np.isnan(arrays["trajectory/train_losses"][0])
    assert arrays["hessian/0/eigenvalues"].tolist() == [4.0, -1.0]
    assert arrays["hessian/0/trace_standard_error"] == 0.25


def test_without_a_grid_there_is_no_table(tmp_path):
    with pytest.raises(ValueError, match="nothing was sampled, so there is no grid to show"):
        write_csv(tmp_path / "l.csv", LandscapeRecord())
