"""Landscapes, checkpoints and curvature in one DuckDB file."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from loss_landscape.arguments import as_finite, as_path
from loss_landscape.checkpointing import digest
from loss_landscape.results.directions import Directions
from loss_landscape.results.grid import Grid
from loss_landscape.results.hessian_metrics import HessianMetrics
from loss_landscape.results.info import DirectionInfo
from loss_landscape.results.landscape import MODES, SHAPES
from loss_landscape.results.result import array
from loss_landscape.results.trajectory import Trajectory
from loss_landscape.storage import strict_json
from loss_landscape.storage.connection import Database
from loss_landscape.storage.migrations import bring_up_to_date
from loss_landscape.storage.records import BegunSurface, Checkpoint, LandscapeRecord, SurfaceKey
from loss_landscape.storage.rows import (
    RECORDED,
    grid_from,
    hessian_from,
    path_columns,
    point_columns,
    spectrum_columns,
    trajectory_from,
)


class LandscapeStorage:
    """A DuckDB file of surfaces, their points and directions, checkpoints and spectra; opening one deletes nothing.

    `path` is made where it is not there, unless it is to be `read_only`. One process at a time, and in it one storage, may have
    it open to write. Points are in double precision with a status each: done, predicted, not finite. Sampling that was
    interrupted leaves its finished cells in a file beside it, and the next call of the same surface goes on from these.

    Raises ImportError without duckdb, StorageInUseError where somebody has the file open, FileNotFoundError where there is none
    to read, and UnreadableFileError for a damaged one, another program's, or a newer version's.

    >>> with LandscapeStorage("landscape.duckdb") as storage:
    ...     storage.record().grids
    {}
    """

    def __init__(self, path: str | Path, *, read_only: bool = False):
        self.path = as_path(path, "path", such_as="landscape.duckdb").absolute()
        self._database = Database(self.path, read_only=read_only)
        try:
            bring_up_to_date(self._database, read_only=read_only)
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if not self._database.is_open:
            return f"LandscapeStorage({str(self.path)!r}, closed)"
        counts = [f"{self._count(table)} {table}" for table in ("surfaces", "checkpoints")]
        return f"LandscapeStorage({str(self.path)!r}, {', '.join(counts)})"

    def close(self) -> None:
        """Let go of the file; once more does nothing."""
        self._database.close()

    # -- surfaces

    def begin(self, key: SurfaceKey, directions: Directions) -> BegunSurface:
        """Say that the surface of this `key` is being sampled along `directions`.

        One of the same identity that was interrupted is gone on with.
        """
        known = self._database.rows("SELECT surface_id FROM surfaces WHERE identity = ? AND status = 'begun'", [key.identity])
        surface_id = known[0][0] if known else self._begin_anew(key, directions)
        return BegunSurface(surface_id, self.path.with_name(f"{self.path.stem}.surface_{surface_id}.partial.npz"))

    def finish(self, begun: BegunSurface, grid: Grid) -> None:
        """Keep the `grid` of the surface `begun`, all of its points or none."""
        info, floor = grid.info, grid.info.noise.floor
        with self._database.transaction():
            self._database.run("DELETE FROM points WHERE surface_id = ?", [begun.surface_id])
            self._database.insert("points", point_columns(begun.surface_id, grid))
            self._database.run(
                "UPDATE surfaces SET status = 'done', baseline_loss = ?, noise_floor = ?, info = ? WHERE surface_id = ?",
                [info.baseline_loss, floor, strict_json.dumps(grid.meta), begun.surface_id],
            )

    def interrupted(self) -> list[int]:
        """The ids of surfaces that were begun and not finished."""
        return [row[0] for row in self._database.rows("SELECT surface_id FROM surfaces WHERE status = 'begun' ORDER BY 1")]

    def finished(self) -> dict[int, int]:
        """The dimensions of every finished surface by its id, the oldest first."""
        return dict(self._database.rows("SELECT surface_id, dim FROM surfaces WHERE status = 'done' ORDER BY surface_id"))

    def grid(self, surface_id: int) -> Grid:
        """The finished surface numbered `surface_id`; ValueError, with those there are, where there is none."""
        self._require_finished(surface_id)
        [(info,)] = self._database.rows("SELECT info FROM surfaces WHERE surface_id = ?", [surface_id])
        query = "SELECT loss, status <> 'predicted' AS evaluated FROM points WHERE surface_id = ? ORDER BY i, j, k"
        return grid_from(self._database.columns(query, [surface_id]), strict_json.loads(info))

    def directions_of(self, surface_id: int) -> Directions:
        """The directions that the finished surface numbered `surface_id` was sampled along."""
        self._require_finished(surface_id)
        [(directions_id,)] = self._database.rows("SELECT directions_id FROM surfaces WHERE surface_id = ?", [surface_id])
        query = "SELECT vector, dtype, info FROM directions WHERE directions_id = ? ORDER BY axis"
        rows = self._database.rows(query, [directions_id])
        vectors = tuple(torch.from_numpy(np.frombuffer(blob, dtype=dtype).copy()) for blob, dtype, _ in rows)
        return Directions(vectors, DirectionInfo.from_json(strict_json.loads(rows[0][2])))

    # -- checkpoints

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint's row; where training went back to an earlier epoch, what came after it is superseded."""
        as_finite(checkpoint.epoch, "epoch")  # NaN is behind every epoch, and would supersede none
        file = as_path(checkpoint.file, "file", such_as="net.pt")
        recorded = [getattr(checkpoint, name) for name in RECORDED]
        with self._database.transaction():
            self._database.run("UPDATE checkpoints SET superseded = TRUE WHERE epoch >= ?", [checkpoint.epoch])
            self._database.run(
                "INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, FALSE, ?)",
                [self._count("checkpoints"), checkpoint.epoch, self._relative(file), *recorded, now()],
            )

    def num_checkpoints(self) -> int:
        """How many were ever recorded, superseded ones too."""
        return self._count("checkpoints")

    def checkpoints(self) -> list[Checkpoint]:
        """Those of the training as it went last, first to last."""
        query = f"SELECT epoch, file, {', '.join(RECORDED)} FROM checkpoints WHERE NOT superseded ORDER BY epoch"
        return [Checkpoint(epoch, self.path.parent / file, *recorded) for epoch, file, *recorded in self._database.rows(query)]

    # -- trajectories and curvature

    def save_trajectory(self, trajectory: Trajectory) -> None:
        """Keep a path, the `trajectory`; the last of a name counts."""
        number, info = self._count("trajectories"), strict_json.dumps(trajectory.directions.to_json())
        with self._database.transaction():
            row = [number, trajectory.name, trajectory.mode, trajectory.plane, info, now()]
            self._database.run("INSERT INTO trajectories VALUES (?, ?, ?, ?, ?, ?)", row)
            self._database.insert("trajectory_points", path_columns(number, trajectory))

    def trajectories(self) -> list[Trajectory]:
        """The last path of each name, in the order of their making."""
        paths = self._database.rows("SELECT name, trajectory_id, mode, plane, info FROM trajectories ORDER BY trajectory_id")
        last = {name: (number, name, *facts) for name, number, *facts in paths}
        query = "SELECT * EXCLUDE (trajectory_id, position) FROM trajectory_points WHERE trajectory_id = ? ORDER BY position"
        return [trajectory_from(facts, self._database.rows(query, [number])) for number, *facts in last.values()]

    def save_hessian(self, metrics: HessianMetrics) -> None:
        """Keep curvature, the `metrics`; the last of an epoch counts."""
        self._database.insert("spectra", spectrum_columns(self._next("spectra", "spectrum_id"), metrics, now()))

    def hessians(self) -> list[HessianMetrics]:
        """The last curvature of each epoch, by epoch."""
        query = (
            "SELECT epoch, value, standard_error, residual, converged, num_samples, info FROM spectra WHERE spectrum_id = ? "
            "ORDER BY quantity, rank"
        )
        last = self._database.rows("SELECT epoch, max(spectrum_id) FROM spectra GROUP BY epoch ORDER BY epoch")
        return [hessian_from(self._database.rows(query, [number])) for _, number in last]

    # -- facts, and everything at once

    def save_fact(self, key: str, value: Any) -> None:
        """Keep a value that JSON can hold; the last of a key counts. TypeError for another value."""
        try:
            text = strict_json.dumps(value)
        except TypeError as error:
            raise TypeError(f"the fact {key!r} must be numbers, texts, lists or dicts, which JSON can hold ({error})") from error
        with self._database.transaction():
            self._database.run("DELETE FROM facts WHERE key = ?", [key])
            self._database.run("INSERT INTO facts VALUES (?, ?)", [key, text])

    def facts(self) -> dict[str, Any]:
        """Every value by its key."""
        return {key: strict_json.loads(value) for key, value in self._database.rows("SELECT key, value FROM facts ORDER BY key")}

    def record(self) -> LandscapeRecord:
        """The last surface of each mode, all of them by name, paths, curvature and facts."""
        found = [(f"{SHAPES[MODES[dim - 1]]}-{number}", dim, self.grid(number)) for number, dim in self.finished().items()]
        last = {dim: grid for _, dim, grid in found}
        grids = {MODES[dim - 1]: last[dim] for dim in sorted(last)}
        kept = {name: grid for name, _, grid in found}
        return LandscapeRecord(grids, tuple(self.trajectories()), tuple(self.hessians()), self.facts(), kept)

    def _require_finished(self, surface_id: int) -> None:
        if surface_id not in (finished := self.finished()):
            there = ", ".join(map(str, finished)) or "none at all"
            raise ValueError(f"{self.path} has no finished surface {surface_id!r}, only {there}")

    def _begin_anew(self, key: SurfaceKey, directions: Directions) -> int:
        surface_id, info = self._next("surfaces", "surface_id"), directions.info
        with self._database.transaction():
            kind = [self._directions_id(directions), info.kind, info.normalization]
            self._database.run(
                "INSERT INTO surfaces VALUES (?, 'begun', ?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL, ?)",
                [surface_id, key.dim, key.identity, key.centre_hash, *kind, key.seed, now()],
            )
        return surface_id

    def _directions_id(self, directions: Directions) -> int:
        """The id of these directions; those that are there already are not kept twice."""
        info = strict_json.dumps(directions.meta)
        mark = digest([*directions, info])
        known = self._database.rows("SELECT directions_id FROM directions WHERE digest = ?", [mark])
        if known:
            return int(known[0][0])
        number = self._next("directions", "directions_id")
        for axis, vector in enumerate(map(array, directions)):
            row = [number, axis, mark, vector.dtype.name, vector.tobytes(), info]
            self._database.run("INSERT INTO directions VALUES (?, ?, ?, ?, ?, ?)", row)
        return number

    def _count(self, table: str) -> int:
        [(count,)] = self._database.rows(f"SELECT count(*) FROM {table}")
        return int(count)

    def _next(self, table: str, column: str) -> int:
        [(number,)] = self._database.rows(f"SELECT coalesce(max({column}) + 1, 1) FROM {table}")
        return int(number)

    def _relative(self, file: Path) -> str:
        """A file below the storage's folder, which may be moved as a whole, by its way from there."""
        folder, file = self.path.resolve().parent, file.resolve()
        return str(file.relative_to(folder) if file.is_relative_to(folder) else file)


def now() -> str:
    """The time, in words that sort."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
