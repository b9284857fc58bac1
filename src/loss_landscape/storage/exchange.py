"""Landscapes for other programs: NumPy, spreadsheets, Parquet, ParaView."""

from __future__ import annotations

import base64
import csv
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from loss_landscape.files import write_whole
from loss_landscape.results.grid import Grid
from loss_landscape.results.info import AXES
from loss_landscape.storage import strict_json
from loss_landscape.storage.connection import duckdb_module
from loss_landscape.storage.records import LandscapeRecord

PATH_COLUMNS = ("epochs", "traj_1", "traj_2", "traj_3", "losses", "plane_losses", "residuals", "train_losses", "val_losses")


def write_npz(path: Path, record: LandscapeRecord) -> None:
    """Everything as arrays: each grid's as `2d/losses`, `2d/alpha`, paths' as `<name>/traj_1`, curvature's as `hessian/…`."""
    arrays: dict[str, np.ndarray] = {}
    for mode, grid in record.grids.items():
        arrays |= {f"{mode}/{name}": array for name, array in grid.to_arrays().items()}
    for trajectory in record.trajectories:
        columns = trajectory.documented()
        arrays |= {f"{trajectory.name}/{name}": _numbers(columns[name]) for name in PATH_COLUMNS if columns[name] is not None}
    for at, metrics in enumerate(record.hessians):
        own = {"eigenvalues": metrics.eigenvalues, "residuals": metrics.residuals, "converged": metrics.converged}
        trace = {"trace": metrics.trace.value, "trace_standard_error": metrics.trace.standard_error, "epoch": metrics.epoch}
        arrays |= {f"hessian/{at}/{name}": np.array(value) for name, value in {**own, **trace}.items()}
    arrays["metadata"] = np.array(strict_json.dumps(record.metadata))
    write_whole(path, partial(_save_npz, arrays))


def write_csv(path: Path, record: LandscapeRecord) -> None:
    """A row for each cell of the main grid: its indices, its coordinates, its loss, whether it was evaluated."""
    names, columns = _table(record.main_grid)

    def write(beside: Path) -> None:
        with beside.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(names)
            rows.writerows(zip(*columns, strict=True))

    write_whole(path, write)


def write_parquet(path: Path, record: LandscapeRecord) -> None:
    """The same table as Parquet; ImportError without duckdb."""
    names, columns = _table(record.main_grid)
    chosen = ", ".join(f"unnest(?) AS {name}" for name in names)

    def write(beside: Path) -> None:
        connection = duckdb_module("Parquet").connect(":memory:", config={"threads": 1})
        try:
            connection.execute(f"CREATE TABLE cells AS SELECT {chosen}", columns)
            connection.table("cells").write_parquet(str(beside))
        finally:
            connection.close()

    write_whole(path, write)


def write_vti(path: Path, record: LandscapeRecord) -> None:
    """The main grid as VTK image data, which ParaView opens: point data `loss`, and `status` 1 done, 0 predicted, −1 not finite.

    The axes are the directions in their own units. Binary, so that numbers that are not finite are kept.
    """
    grid = record.main_grid
    status = np.where(np.isfinite(grid.losses), np.where(grid.evaluated, 1, 0), -1).astype(np.int32)
    arrays = _data_array("loss", grid.losses) + _data_array("status", status)
    extent, origin, spacing = _lattice(grid)
    text = (
        '<?xml version="1.0"?>\n'
        '<VTKFile type="ImageData" version="1.0" byte_order="LittleEndian" header_type="UInt64">\n'
        f'<ImageData WholeExtent="{extent}" Origin="{origin}" Spacing="{spacing}">\n'
        f'<Piece Extent="{extent}">\n<PointData Scalars="loss">\n{arrays}</PointData>\n</Piece>\n</ImageData>\n</VTKFile>\n'
    )
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def _lattice(grid: Grid) -> tuple[str, str, str]:
    """Extent, origin and spacing of evenly spaced axes, in VTK's words; a dimension that is not there has one point."""
    sides = [*grid.resolution, 1, 1][:3]
    origins = [*(float(axis[0]) for axis in grid.coordinates), 0.0, 0.0][:3]
    steps = [*(float(axis[-1] - axis[0]) / (len(axis) - 1) for axis in grid.coordinates), 1.0, 1.0][:3]
    extent = " ".join(f"0 {side - 1}" for side in sides)
    return extent, " ".join(map(repr, origins)), " ".join(map(repr, steps))


def _data_array(name: str, values: np.ndarray) -> str:
    """An array in VTK's order, the first index running fastest, in base64 behind its length."""
    kind = {"f": "Float64", "i": "Int32"}[values.dtype.kind]
    content = np.asfortranarray(values).astype(values.dtype.newbyteorder("<")).tobytes(order="F")
    encoded = base64.b64encode(struct.pack("<Q", len(content)) + content).decode()
    return f'<DataArray type="{kind}" Name={quoteattr(name)} format="binary">{encoded}</DataArray>\n'


def _table(grid: Grid) -> tuple[list[str], list[list[Any]]]:
    """The names and columns of a grid's cells."""
    indices = np.indices(grid.losses.shape).reshape(grid.losses.ndim, -1)
    places = [axis[index] for axis, index in zip(grid.coordinates, indices, strict=True)]
    names = [*"ijk"[: grid.losses.ndim], *AXES[: grid.losses.ndim], "loss", "evaluated"]
    columns: Iterator[np.ndarray] = iter([*indices, *places, grid.losses.reshape(-1), grid.evaluated.reshape(-1)])
    return names, [column.tolist() for column in columns]


def _numbers(column: Any) -> np.ndarray:
    """A path's column, NaN where nothing was recorded."""
    return np.array([np.nan if one is None else one for one in column], dtype=np.float64)


def _save_npz(arrays: dict[str, np.ndarray], path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
