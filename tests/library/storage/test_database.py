"""The Writer's database: what goes in comes out, nothing is deleted, and what is wrong with a file is said in a sentence."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch

from loss_landscape import DirectionInfo, Directions, Estimate, Grid, GridInfo, LandscapeStorage
from loss_landscape.files import UnreadableFileError
from loss_landscape.results.hessian_metrics import HessianMetrics
from loss_landscape.results.trajectory import PathPoint, Trajectory
from loss_landscape.storage import migrations
from loss_landscape.storage.connection import StorageInUseError
from loss_landscape.storage.records import Checkpoint, SurfaceKey

AXIS = np.array([-0.1, 0.0, 0.1])
DIRECTIONS = Directions((torch.tensor([3.0, 4.0]), torch.tensor([0.1, 0.2])), DirectionInfo("random", normalization="filter"))
ODD = [1 / 3, math.nan, math.inf, -math.inf, 5e-324]
"""Numbers that single precision, NULL or JSON would lose."""


def plane(**options) -> Grid:
    losses = np.arange(9.0).reshape(3, 3)
    losses.flat[:5] = ODD
    return Grid(losses, (AXIS, 2 * AXIS), GridInfo(baseline_loss=1 / 7, extra={"notes": ["a note"]}), **options)


def keep(storage: LandscapeStorage, grid: Grid, identity: str = "a") -> int:
    begun = storage.begin(SurfaceKey(identity, grid.losses.ndim, "centre", 42), DIRECTIONS)
    storage.finish(begun, grid)
    return begun.surface_id


def assert_same(found: Grid, wanted: Grid) -> None:
    assert found.losses.tobytes() == wanted.losses.tobytes()
    assert all(np.array_equal(one, other) for one, other in zip(found.coordinates, wanted.coordinates, strict=True))
    assert np.array_equal(found.evaluated, wanted.evaluated)
    assert found.info == wanted.info


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_grid_comes_back_bit_by_bit(tmp_path, dim):
    losses = np.random.default_rng(0).normal(size=(3, 4, 5)[:dim])
    losses.flat[:3] = ODD[:3]
    grid = Grid(losses, tuple(np.linspace(-0.1, 0.3, side) for side in losses.shape), GridInfo(baseline_loss=1 / 3))
    with LandscapeStorage(tmp_path / "l.duckdb") as storage:
        keep(storage, grid)
    with LandscapeStorage(tmp_path / "l.duckdb") as storage:
        assert_same(storage.grid(1), grid)


def test_points_have_a_status_each(tmp_path):
    evaluated = np.ones((3, 3), dtype=bool)
    evaluated[2, 2] = False
    with LandscapeStorage(tmp_path / "l.duckdb") as storage:
        keep(storage, plane(evaluated=evaluated))
    with duckdb.connect(str(tmp_path / "l.duckdb")) as file:
        counts = dict(file.execute("SELECT status, count(*) FROM points GROUP BY 1").fetchall())
        types = dict(
            file.execute("SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'points'").fetchall()
        )
    assert counts == {"done": 5, "not finite": 3, "predicted": 1}
    assert types["loss"] == types["alpha"] == "DOUBLE"
    with LandscapeStorage(tmp_path / "l.duckdb") as storage:
        assert_same(storage.grid(1), plane(evaluated=evaluated))


def test_two_surfaces_stay_two(tmp_path):
    """The program that these names are from merged them into one of 121 cells, 48 of them 0."""
    with LandscapeStorage(tmp_path / "l.duckdb") as storage:
        small, large = plane(), Grid(np.ones((5, 5)), (np.linspace(-1, 1, 5),) * 2)
        ids = [keep(storage, small, "a"), keep(storage, large, "b"), keep(storage, small, "a")]
        assert list(storage.finished()) == ids == [1, 2, 3]
        assert_same(storage.grid(2), large)
        assert_same(storage.record().grids["2d"], small)


def test_directions_are_the_same_numbers_and_kept_once(tmp_path):
    with LandscapeStorage(tmp_path / "l.duckdb") as storage:
        first, second = keep(storage, plane(), "a"), keep(storage, plane(), "b")
        for surface_id in (first, second):
            found = storage.directions_of(surface_id)
            assert all(torch.equal(one, other) for one, other in zip(found, DIRECTIONS, strict=True))
            assert found.info == DIRECTIONS.info
    with duckdb.connect(str(tmp_path / "l.duckdb")) as file:
        assert file.execute("SELECT count(*) FROM directions").fetchone() == (2,)


def test_what_was_begun_is_gone_on_with(tmp_path):
    with LandscapeStorage(tmp_path / "l.duckdb") as storage:
        begun = storage.begin(SurfaceKey("a", 2, "centre"), DIRECTIONS)
    with LandscapeStorage(tmp_path / "l.duckdb") as storage:
        assert storage.interrupted() == [begun.surface_id]
        assert storage.finished() == {}
        assert storage.begin(SurfaceKey("a", 2, "centre"), DIRECTIONS) == begun
        assert storage.begin(SurfaceKey("b", 2, "centre"), DIRECTIONS) != begun


def test_a_transaction_that_fails_leaves_nothing(tmp_path, monkeypatch):
    with LandscapeStorage(tmp_path / "l.duckdb") as storage:
        begun = storage.begin(SurfaceKey("a", 2, "centre"), DIRECTIONS)
        broken = replace(plane(), info=GridInfo(extra={"no JSON": object()}))
        with pytest.raises(TypeError, match="not JSON serializable"):
            storage.finish(begun, broken)
        assert storage.finished() == {}
        storage.finish(begun, plane())
        assert_same(storage.grid(1), plane())


def test_checkpoints_of_a_training_that_went_back(tmp_path):
    with LandscapeStorage(tmp_path / "l.duckdb") as storage:
        for epoch, loss in [(0, 3.0), (1, math.nan), (2, 1.0), (1, 1.5), (2.5, None)]:
            storage.save_checkpoint(Checkpoint(epoch, tmp_path / "checkpoints" / f"{storage.num_checkpoints()}.pt", loss))
    with LandscapeStorage(tmp_path / "l.duckdb") as storage:
        assert [(point.epoch, point.train_loss, point.file.name) for point in storage.checkpoints()] == [
            (0, 3.0, "0.pt"),
            (1, 1.5, "3.pt"),
            (2.5, None, "4.pt"),
        ]
        assert storage.num_checkpoints() == 5


def test_a_folder_may_be_moved(tmp_path):
    with LandscapeStorage(tmp_path / "one" / "l.duckdb") as storage:
        storage.save_checkpoint(Checkpoint(0, tmp_path / "one" / "checkpoints" / "0.pt"))
    (tmp_path / "one").rename(tmp_path / "other")
    with LandscapeStorage(tmp_path / "other" / "l.duckdb") as storage:
        assert storage.checkpoints()[0].file == tmp_path / "other" / "checkpoints" / "0.pt"


def test_paths_and_curvature_come_back(tmp_path):
    points = (
        PathPoint(0.0, (0.5, math.nan), math.inf, 1 / 3, 0.25, None, math.nan, 0.1),
        PathPoint(1.0, (0.0, 0.0), 0.0, 0.1, 0.1),
    )
    path = Trajectory(points, "pca", DirectionInfo("trajectory", norms=(1.0, 1.0), explained_variance=(0.9, 0.05)), "run", "mark")
    metrics = HessianMetrics(
        (4.0, 1.0, -1.0), (1e-8, 1e-7, 0.5), (True, True, False), 2, Estimate(3.5, 0.25, 100, "odd"), 9, 3.0, ("n",)
    )
    with LandscapeStorage(tmp_path / "l.duckdb") as storage:
        storage.save_trajectory(replace(path, points=points[:1]))
        storage.save_trajectory(path)
        storage.save_trajectory(replace(path, name="other"))
        storage.save_hessian(replace(metrics, eigenvalues=(5.0, 1.0, -1.0)))
        storage.save_hessian(metrics)
        record = storage.record()
    assert [(one.name, one.mode, one.plane, one.directions) for one in record.trajectories] == [
        ("run", "pca", "mark", path.directions),
        ("other", "pca", "mark", path.directions),
    ]
    assert repr(record.trajectories[0].points) == repr(points)
    assert [one.to_json() for one in record.hessians] == [metrics.to_json()]


# -- files that can't be opened


def test_two_in_one_process_end_in_a_sentence(tmp_path):
    storage = LandscapeStorage(tmp_path / "l.duckdb")
    with pytest.raises(StorageInUseError, match=r"l\.duckdb is open in this process already; close that storage or Writer first"):
        LandscapeStorage(tmp_path / "l.duckdb")
    storage.close()
    LandscapeStorage(tmp_path / "l.duckdb").close()


def test_two_processes_end_in_a_sentence(tmp_path):
    code = "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    LandscapeStorage(tmp_path / "l.duckdb").close()
    words = [sys.executable, "-c", code, str(tmp_path / "l.duckdb")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(StorageInUseError, match="is open in another process, and one Writer at a time may have it"):
            LandscapeStorage(tmp_path / "l.duckdb")
    LandscapeStorage(tmp_path / "l.duckdb").close()


def test_a_storage_that_nobody_holds_is_open_no_more(tmp_path):
    LandscapeStorage(tmp_path / "l.duckdb")
    with LandscapeStorage(tmp_path / "l.duckdb") as storage:
        assert repr(storage) == f"LandscapeStorage({str(tmp_path / 'l.duckdb')!r}, 0 surfaces, 0 checkpoints)"
    assert repr(storage).endswith("closed)")
    with pytest.raises(ValueError, match=r"l\.duckdb is closed; open it again"):
        storage.record()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_a_truncated_file_is_named_and_left_alone(tmp_path, share):
    path = tmp_path / "l.duckdb"
    with LandscapeStorage(path) as storage:
        keep(storage, plane())
    content = path.read_bytes()
    cut = content[: int(share * len(content))]
    path.write_bytes(cut)
    with (
        pytest.raises(UnreadableFileError, match=r"l\.duckdb is no landscape database, or is damaged"),
        LandscapeStorage(path) as storage,
    ):
        storage.record()
    assert path.read_bytes() == cut


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*l\.duckdb"):
        LandscapeStorage(tmp_path / "l.duckdb", read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_another_programs_file_is_refused(tmp_path):
    with duckdb.connect(str(tmp_path / "l.duckdb")) as file:
        file.execute("CREATE TABLE landscape_points (epoch INTEGER)")
    with pytest.raises(UnreadableFileError, match="another program's database: it has the tables landscape_points"):
        LandscapeStorage(tmp_path / "l.duckdb")


def test_a_newer_schema_is_refused(tmp_path):
    LandscapeStorage(tmp_path / "l.duckdb").close()
    with duckdb.connect(str(tmp_path / "l.duckdb")) as file:
        file.execute("INSERT INTO schema_version VALUES (99)")
    with pytest.raises(UnreadableFileError, match=r"written by a newer loss_landscape \(schema 99, this one knows 1\)"):
        LandscapeStorage(tmp_path / "l.duckdb")


def test_an_older_schema_is_brought_up_to_date(tmp_path, monkeypatch):
    with LandscapeStorage(tmp_path / "l.duckdb") as storage:
        keep(storage, plane())
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, "ALTER TABLE facts ADD COLUMN told VARCHAR"))
    with pytest.raises(UnreadableFileError, match="has schema 1, older than 2: open it once"):
        LandscapeStorage(tmp_path / "l.duckdb", read_only=True)
    for _ in range(2):
        with LandscapeStorage(tmp_path / "l.duckdb") as storage:
            assert_same(storage.grid(1), plane())
    with duckdb.connect(str(tmp_path / "l.duckdb")) as file:
        assert file.execute("SELECT version FROM schema_version ORDER BY 1").fetchall() == [(1,), (2,)]
        assert "told" in {row[0] for row in file.execute("DESCRIBE facts").fetchall()}


def test_without_duckdb_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ImportError, match=r"needs duckdb: pip install 'taskshift\[writer\]'"):
        LandscapeStorage(tmp_path / "l.duckdb")


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    """DuckDB's own words for it, since no test can fill a disk."""
    storage = LandscapeStorage(tmp_path / "l.duckdb")

    def full(*_: object) -> None:
        raise duckdb.IOException('IO Error: Could not write file "l.duckdb": No space left on device')

    monkeypatch.setattr(storage._database, "_ask", full)
    with pytest.raises(OSError, match="the disk is full; make room and call again: what is finished is kept"):
        storage.save_fact("key", 1)


def test_facts_are_kept_by_key(tmp_path):
    with LandscapeStorage(Path(tmp_path) / "l.duckdb") as storage:
        storage.save_fact("key", 1)
        storage.save_fact("key", {"a": [math.inf]})
        assert storage.facts() == {"key": {"a": [math.inf]}}
