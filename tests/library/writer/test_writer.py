"""The Writer: folders that keep everything, directions that are shared, trainings on disk, exports that lose nothing."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from user_training import Branching, examples, loader_of, mean_loss, one_epoch, user_net

from loss_landscape import Explorer, LossLandscapeWriter, sample_landscape
from loss_landscape.files import UnreadableFileError
from loss_landscape.storage.connection import StorageInUseError
from loss_landscape.storage.landscape_file import read_landscape


def train(writer: LossLandscapeWriter, net, *, epochs: int = 5, start: int = 0) -> None:
    for epoch in range(start, start + epochs):
        loss = one_epoch(net, loader_of())
        writer.record_checkpoint(net, epoch, train_loss=loss, val_loss=torch.tensor(2 * loss), learning_rate=0.5)


# -- one call


def test_one_call_writes_a_file(tmp_path):
    net = user_net()
    landscape = sample_landscape(net, loader_of(), F.cross_entropy, tmp_path / "deep" / "landscape.json", grid_size=5)
    entries = json.loads((tmp_path / "deep" / "landscape.json").read_text())
    assert entries["loss_grid_2d"] == landscape["loss_grid_2d"].tolist()
    assert entries["X"][4] == [0.1] * 5
    assert entries["baseline_loss"] == pytest.approx(mean_loss(net, examples()), rel=1e-6)
    assert (entries["grid_size"], entries["mode"], entries["version"]) == (5, "2d", 1)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["landscape.json"]


def test_one_call_needs_no_database(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    sample_landscape(user_net(), loader_of(), F.cross_entropy, tmp_path / "l.npz", grid_size=3, mode="1d")
    assert np.load(tmp_path / "l.npz")["1d/losses"].shape == (3,)
    with pytest.raises(
        ValueError, match="the ending says what is written, and there are .json, .npz, .csv, .parquet, .vti, .png, .pdf, .html"
    ):
        sample_landscape(user_net(), loader_of(), F.cross_entropy, tmp_path / "l.xyz", grid_size=3)


def test_an_unknown_ending_is_told_before_anything_is_computed(tmp_path):
    def called(outputs, targets):
        raise AssertionError("the loss was computed")

    with pytest.raises(ValueError, match="the ending says what is written"):
        sample_landscape(user_net(), loader_of(), called, tmp_path / "landscape.xyz")


@pytest.mark.slow
def test_a_first_landscape_of_an_mlp_on_digits_is_there_in_ten_seconds(tmp_path):
    """Of computing, which on two cores is no more than that by the clock: three lines, with nothing chosen."""
    from sklearn.datasets import load_digits

    inputs, targets = load_digits(return_X_y=True)
    data = torch.utils.data.TensorDataset(torch.tensor(inputs / 16, dtype=torch.float32), torch.tensor(targets))
    net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    begun = time.process_time()
    landscape = sample_landscape(net, torch.utils.data.DataLoader(data, 128), F.cross_entropy, tmp_path / "landscape.json")
    assert time.process_time() - begun < 10
    assert landscape.grid.losses.shape == (50, 50)


# -- folders


def test_a_folder_keeps_what_was_in_it(tmp_path):
    """Reopening a folder deleted its results, in the program that these names are from."""
    net = user_net()
    with LossLandscapeWriter(tmp_path) as writer:
        train(writer, net, epochs=3)
        first = writer.sample_landscape(net, loader_of(), F.cross_entropy, grid_size=3)
    with LossLandscapeWriter(tmp_path) as writer:
        train(writer, net, epochs=1, start=3)
        writer.sample_landscape(net, loader_of(), F.cross_entropy, grid_size=4)
        assert [point.epoch for point in writer.checkpoints()] == [0, 1, 2, 3]
        assert np.array_equal(writer.storage.grid(1).losses, first.grid.losses)
    assert json.loads((tmp_path / "landscape.json").read_text())["grid_size"] == 4


def test_exports_are_made_on_close_if_wanted(tmp_path):
    for name, options, wanted in [("a", {}, True), ("b", {"auto_export": False}, False)]:
        writer = LossLandscapeWriter(tmp_path / name, **options)
        writer.sample_landscape(user_net(), loader_of(), F.cross_entropy, grid_size=2)
        writer.close()
        writer.close()
        assert (tmp_path / name / "landscape.json").exists() == wanted
    with LossLandscapeWriter(tmp_path / "c"):
        pass
    assert not (tmp_path / "c" / "landscape.json").exists()


def test_an_error_inside_is_the_one_that_is_seen(tmp_path):
    """Also where an export would fail: what is finished is kept, and not exported."""
    (tmp_path / ".partial.landscape.json").symlink_to("/dev/full")

    def fail():
        with LossLandscapeWriter(tmp_path) as writer:
            writer.sample_landscape(user_net(), loader_of(), F.cross_entropy, grid_size=2)
            raise KeyError("the user's own")

    with pytest.raises(KeyError, match="the user's own"):
        fail()
    with LossLandscapeWriter(tmp_path, auto_export=False) as writer:
        assert list(writer.storage.finished()) == [1]


def test_two_writers_on_one_folder_end_in_a_sentence(tmp_path):
    with LossLandscapeWriter(tmp_path), pytest.raises(StorageInUseError, match="open in this process already"):
        LossLandscapeWriter(tmp_path)


def test_a_closed_writer_says_so(tmp_path):
    writer = LossLandscapeWriter(tmp_path)
    writer.close()
    with pytest.raises(ValueError, match="is closed; open it again with"):
        writer.record_checkpoint(user_net(), 0)
    assert "closed" in repr(writer)


def test_a_full_disk_is_told_and_loses_nothing(tmp_path):
    """/dev/full says what a full disk does, in the place of the files that are being written."""
    net = user_net()
    (tmp_path / "checkpoints").mkdir()
    full = {"checkpoint": tmp_path / "checkpoints" / ".partial.000000_epoch_0.pt", "export": tmp_path / ".partial.landscape.json"}
    for file in full.values():
        file.symlink_to("/dev/full")
    writer = LossLandscapeWriter(tmp_path)
    with pytest.raises(OSError, match="No space left on device"):
        writer.record_checkpoint(net, 0)
    assert writer.checkpoints() == []
    landscape = writer.sample_landscape(net, loader_of(), F.cross_entropy, grid_size=3)
    with pytest.raises(OSError, match="No space left on device"):
        writer.close()
    for file in full.values():
        file.unlink()
    with LossLandscapeWriter(tmp_path) as again:
        assert np.array_equal(again.storage.grid(1).losses, landscape.grid.losses)
        again.record_checkpoint(net, 0)


# -- directions


def test_directions_are_those_that_were_used(tmp_path):
    """All three of a volume, as they were after normalising and orthogonalising."""
    net = user_net()
    with LossLandscapeWriter(tmp_path / "a") as writer:
        with pytest.raises(ValueError, match="no landscape was sampled yet"):
            writer.get_directions()
        writer.sample_landscape(net, loader_of(), F.cross_entropy, mode="3d", grid_size=2)
        used = writer.get_directions()
    wanted = Explorer(net, F.cross_entropy, loader_of()).directions(3)
    assert len(used) == 3
    assert all(torch.equal(one, other) for one, other in zip(used, wanted, strict=True))


def test_another_net_is_seen_from_the_same_angle(tmp_path):
    """The very vectors, moved from the other net's place: compared with losses by hand."""
    nets = [user_net(seed=seed) for seed in (1, 2)]
    with LossLandscapeWriter(tmp_path / "a") as writer:
        writer.sample_landscape(nets[0], loader_of(), F.cross_entropy, grid_size=3)
        directions = writer.get_directions()
    with LossLandscapeWriter(tmp_path / "b", seed=7) as writer:
        landscape = writer.sample_landscape(nets[1], loader_of(), F.cross_entropy, grid_size=3, directions=directions)
        assert all(torch.equal(one, other) for one, other in zip(writer.get_directions(), directions, strict=True))
    moved = user_net(seed=2)
    there = torch.nn.utils.parameters_to_vector(moved.parameters()) + 0.1 * directions[0] - 0.1 * directions[1]
    torch.nn.utils.vector_to_parameters(there, moved.parameters())
    assert landscape.grid.losses[2, 0] == pytest.approx(mean_loss(moved, examples()), rel=1e-5)
    own = torch.nn.utils.parameters_to_vector(nets[1].parameters()).norm().item()
    assert landscape.grid.info.directions.origin_norm == pytest.approx(own), "relative lengths are the second net's"


# -- trainings


def test_checkpoints_are_on_disk_with_their_buffers(tmp_path):
    net = user_net(norm=True)
    with LossLandscapeWriter(tmp_path) as writer:
        train(writer, net, epochs=2)
        files = [point.file for point in writer.checkpoints()]
    for name, tensor in net.state_dict().items():
        assert torch.equal(torch.load(files[-1])[name], tensor)
    assert "1.running_mean" in torch.load(files[0])
    assert all(file.parent == tmp_path / "checkpoints" for file in files)


def test_checkpoints_take_no_memory(tmp_path):
    """No tensor of a recorded state is left behind."""
    net = user_net()

    def num_tensors() -> int:
        gc.collect()
        return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())

    with LossLandscapeWriter(tmp_path) as writer:
        writer.record_checkpoint(net, 0)
        before = num_tensors()
        for epoch in range(1, 6):
            writer.record_checkpoint(net, epoch)
        assert num_tensors() == before


def test_a_training_on_the_plane_of_its_path(tmp_path):
    net = user_net()
    with LossLandscapeWriter(tmp_path) as writer:
        with pytest.raises(
            ValueError, match=r"a path needs 3 recorded checkpoints or more, and .* has 0; call writer.record_checkpoint"
        ):
            writer.sample_landscape(net, loader_of(), F.cross_entropy, direction_mode="pca")
        train(writer, net)
        path = writer.build_trajectory(net, loader_of(), F.cross_entropy)
        landscape = writer.sample_landscape(net, loader_of(), F.cross_entropy, direction_mode="pca", grid_size=5)
        again = writer.build_trajectory(net, loader_of(), F.cross_entropy, mode="fixed", name="fixed")
        record = writer.record()
    assert path.plane == landscape.plane == again.plane
    assert np.allclose(path.coordinates, again.coordinates)
    assert np.abs(path.coordinates).max() <= landscape.range_scale
    assert path["val_losses"] == pytest.approx([2 * loss for loss in path["train_losses"]])
    assert [one.name for one in record.paths_on(record.main_grid)] == ["trajectory", "fixed"]
    assert record.metadata["training_statistics"]["min_loss_epoch"] == 4
    assert record.metadata["training_statistics"]["learning_rate_history"] == [0.5] * 5


def test_paths_of_two_optimizers_on_one_plane(tmp_path):
    nets = {"sgd": user_net(seed=1), "other": user_net(seed=1)}
    writers = {name: LossLandscapeWriter(tmp_path / name) for name in nets}
    for name, lr in (("sgd", 0.5), ("other", 0.1)):
        for epoch in range(4):
            writers[name].record_checkpoint(nets[name], epoch)
            one_epoch(nets[name], loader_of(), lr=lr)
        writers[name].record_checkpoint(nets[name], 4)
    here = writers["sgd"]
    here.sample_landscape(nets["sgd"], loader_of(), F.cross_entropy, direction_mode="pca", grid_size=3)
    for name, writer in writers.items():
        given = {"checkpoints": writer.checkpoints(), "mode": "fixed", "name": name}
        here.build_trajectory(nets["sgd"], loader_of(), F.cross_entropy, **given)
    paths = here.record().paths_on(here.record().main_grid)
    assert [path.name for path in paths] == ["sgd", "other"]
    assert np.allclose(paths[0].coordinates[0], paths[1].coordinates[0]), "both began at the same net"
    assert not np.allclose(paths[0].coordinates[-1], paths[1].coordinates[-1])
    assert paths[1].losses[-1] == pytest.approx(mean_loss(nets["other"], examples()), rel=1e-5)
    here.export(tmp_path / "paths.png")


# -- interrupted

SLOW = """
import sys, time, torch
sys.path[:0] = [{tests!r}]
from user_training import Branching, loader_of
from loss_landscape import LossLandscapeWriter

def slowly(model, inputs, targets):
    time.sleep({seconds})
    return torch.nn.functional.cross_entropy(model(inputs), targets)

with LossLandscapeWriter(sys.argv[1]) as writer:
    print("sampling", flush=True)
    writer.sample_landscape(Branching(), loader_of(), slowly, grid_size=7)
"""


def slowly(model, inputs, targets):
    """The same without the pause: the name is kept in the record."""
    return F.cross_entropy(model(inputs), targets)


def test_a_killed_process_leaves_a_folder_that_goes_on(tmp_path):
    """Bit for bit what an undisturbed process samples, from the cells that it had."""
    code = SLOW.format(tests=str(Path(__file__).parents[1]), seconds=0.02)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "killed")], env=environment) as killed:
        partial, deadline = tmp_path / "killed" / "landscape.surface_1.partial.npz", time.monotonic() + 120
        while not partial.exists() and time.monotonic() < deadline and killed.poll() is None:
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    kept = np.load(partial)["done"]
    assert 0 < kept.sum() < len(kept)
    with LossLandscapeWriter(tmp_path / "killed") as writer:
        assert writer.storage.interrupted() == [1]
        assert writer.storage.finished() == {}
        writer.sample_landscape(Branching(), loader_of(), slowly, grid_size=7)
        assert list(writer.storage.finished()) == [1]
        resumed = writer.storage.grid(1)
    assert not partial.exists()
    with LossLandscapeWriter(tmp_path / "whole") as writer:
        whole = writer.sample_landscape(Branching(), loader_of(), slowly, grid_size=7).grid
    assert resumed.losses.tobytes() == whole.losses.tobytes()


def test_going_on_evaluates_only_what_is_missing(tmp_path):
    """By counting the calls of the loss after an interruption."""
    calls = []

    def counting(stop_after: int):
        def loss(model, inputs, targets):
            calls.append(1)
            if len(calls) > stop_after:
                raise KeyboardInterrupt
            return F.cross_entropy(model(inputs), targets)

        return loss

    def sample(stop_after: int) -> int:
        calls.clear()
        with LossLandscapeWriter(tmp_path) as writer:
            writer.sample_landscape(Branching(), loader_of(), counting(stop_after), grid_size=9)
        return len(calls)

    with pytest.raises(KeyboardInterrupt):
        sample(250)
    resumed = sample(10**6)
    whole = LossLandscapeWriter(tmp_path / "whole")
    calls.clear()
    whole.sample_landscape(Branching(), loader_of(), counting(10**6), grid_size=9)
    assert resumed < len(calls) - 100
    with LossLandscapeWriter(tmp_path) as writer:
        assert writer.storage.grid(1).losses.tobytes() == whole.storage.grid(1).losses.tobytes()


# -- landscape.json


def test_a_landscape_file_loses_nothing(tmp_path):
    net = user_net()
    with LossLandscapeWriter(tmp_path) as writer:
        train(writer, net)
        for mode in ("1d", "2d", "3d"):
            writer.sample_landscape(net, loader_of(), F.cross_entropy, mode=mode, grid_size=3)
        writer.build_trajectory(net, loader_of(), F.cross_entropy)
        writer.compute_hessian_metrics(net, loader_of(), F.cross_entropy, top_k=2)
        record = writer.record()
    again = read_landscape(tmp_path / "landscape.json")
    for mode, grid in record.grids.items():
        assert again.grids[mode].losses.tobytes() == grid.losses.tobytes()
        assert again.grids[mode].info == grid.info
    assert [path.to_json() for path in again.trajectories] == [path.to_json() for path in record.trajectories]
    assert [one.to_json() for one in again.hessians] == [one.to_json() for one in record.hessians]
    assert again.metadata == json.loads(json.dumps(record.metadata))
    assert (tmp_path / "landscape.json").read_bytes() == _exported_again(tmp_path)


def _exported_again(folder: Path) -> bytes:
    with LossLandscapeWriter(folder, auto_export=False) as writer:
        return writer.export(folder / "again.json").read_bytes()


def test_the_documented_keys_are_there(tmp_path):
    net = user_net()
    with LossLandscapeWriter(tmp_path) as writer:
        train(writer, net)
        for mode in ("1d", "2d", "3d"):
            writer.sample_landscape(net, loader_of(), F.cross_entropy, mode=mode, grid_size=3)
        writer.build_trajectory(net, loader_of(), F.cross_entropy)
        writer.compute_hessian_metrics(net, loader_of(), F.cross_entropy, top_k=2)
    entries = json.loads((tmp_path / "landscape.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert {"X", "Y", "loss_grid_2d", "baseline_loss", "grid_size", "mode"} <= set(entries)
    assert {"X_1d", "loss_line_1d", "baseline_loss_1d", "grid_size_1d"} <= set(entries)
    assert {"Z", "loss_grid_3d", "volume_x", "volume_y", "volume_z"} <= set(entries)
    assert entries["mode"] == "1d+2d"
    assert set(entries["trajectory_data"]) >= {"traj_1", "traj_2", "traj_3", "epochs", "losses", "val_losses"}
    assert set(entries["hessian"]) >= {
        "epochs",
        "max_eigenvalue",
        "trace",
        "top_eigenvalues",
        "trace_standard_error",
        "residuals",
    }
    assert {"experiment", "dataset", "model", "training", "training_statistics", "landscape", "system"} <= set(
        entries["metadata"]
    )
    assert entries["metadata"]["model"]["total_params"] == sum(p.numel() for p in net.parameters())
    assert entries["landscapes"]["2d"]["normalization"] == "filter"
    assert entries["landscapes"]["2d"]["noise_floor"] >= 0


def test_numbers_that_are_not_finite_are_null_and_told_apart(tmp_path):
    from loss_landscape import Grid, GridInfo
    from loss_landscape.storage.landscape_file import write_landscape
    from loss_landscape.storage.records import LandscapeRecord

    losses = np.array([[1.0, np.nan], [np.inf, -np.inf]])
    grid = Grid(losses, ([0, 1], [0, 1]), GridInfo(baseline_loss=np.nan), np.array([[True, True], [True, False]]))
    write_landscape(tmp_path / "l.json", LandscapeRecord({"2d": grid}))
    entries = json.loads((tmp_path / "l.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert entries["loss_grid_2d"] == [[1.0, None], [None, None]]
    assert entries["nonfinite"]["loss_grid_2d"] == [["[0][1]", "nan"], ["[1][0]", "inf"], ["[1][1]", "-inf"]]
    again = read_landscape(tmp_path / "l.json").grids["2d"]
    assert again.losses.tobytes() == losses.tobytes()
    assert np.isnan(again.info.baseline_loss)
    assert again.evaluated.tolist() == [[True, True], [True, False]]


def test_a_file_of_the_documented_keys_alone_is_read(tmp_path):
    X, Y = np.meshgrid([-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], indexing="ij")
    entries = {
        "X": X.tolist(),
        "Y": Y.tolist(),
        "loss_grid_2d": (X**2 + Y).tolist(),
        "baseline_loss": 0.0,
        "grid_size": 3,
        "mode": "2d",
    }
    (tmp_path / "l.json").write_text(json.dumps(entries))
    grid = read_landscape(tmp_path / "l.json").grids["2d"]
    assert [axis.tolist() for axis in grid.coordinates] == [[-1, 0, 1], [-2, 0, 2]]
    assert grid.losses[2, 0] == -1.0
    assert grid.centre_loss == 0.0


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"X": [1, 2', "is no JSON, or was cut off"),
        ("", "is no JSON, or was cut off"),
        ("[1, 2]", "is no landscape: it has none of the keys loss_line_1d"),
        ('{"version": 2, "loss_grid_2d": []}', r"is of version 2, newer than 1, which this loss_landscape reads: pip install"),
        ('{"loss_grid_2d": [[1]]}', "is a damaged landscape"),
        ('{"version": "2", "loss_grid_2d": [[1]]}', "is a damaged landscape"),
        ('{"landscapes": 5, "loss_line_1d": [1, 2]}', "is a damaged landscape"),
        ('{"metadata": 5, "hessian": {}}', "is a damaged landscape"),
        ('{"trajectories": [{"name": "t", "mode": "pca", "points": []}], "hessian": {}}', "is a damaged landscape"),
    ],
)
def test_files_that_can_not_be_read_end_in_a_sentence(tmp_path, content, sentence):
    (tmp_path / "l.json").write_text(content)
    with pytest.raises(UnreadableFileError, match=sentence):
        read_landscape(tmp_path / "l.json")
    with pytest.raises(FileNotFoundError, match="there is no .*absent.json"):
        read_landscape(tmp_path / "absent.json")
