"""A folder belongs to one run and one process; its record is cut and read whole."""

import copy
import errno
import fcntl
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from taskshift.faults import Fault
from taskshift.identity import identity, refuse_another_identity
from taskshift.run_folder import RunFolder, Written, disk_faults, held, is_held, read_rows

CONFIG = {
    "seed": 0,
    "arch": "mlp",
    "data": {"root": "a", "download": False, "train_size": 5},
    "net": {"width": 3},
    "learner": {"lr": 0.1},
    "task_shift_mode": "permuted",
    "task_shift": {"across_channels": False},
    "epochs": 2,
    "batch_size": 4,
    "evaluate_every": 1,
    "log_every": None,
    "plugins": [],
    "lla": {
        "enable_sam": True,
        "enable_rank": False,
        "on_error": "stop",
        "every": 1,
        "tolerance": None,
        "compile": "auto",
        "runtime": {"abort_if_estimated_hours_over": None},
    },
    "num_tasks": 3,
    "device": "cpu",
}


def changed(**changes):
    config = copy.deepcopy(CONFIG)
    for dotted, value in changes.items():
        *path, last = dotted.split("__")
        node = config
        for key in path:
            node = node[key]
        node[last] = value
    return config


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run", "mlp")


def test_two_processes_are_refused(folder):
    with folder.locked(), pytest.raises(Fault, match="another process is at work"), RunFolder(folder.path, "mlp").locked():
        pass


def test_a_lock_is_free_after_use(folder):
    for _ in range(2):
        with folder.locked():
            pass


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "away").symlink_to(tmp_path / "nowhere")
    for root, why in ((tmp_path / "away", "File exists"), (tmp_path / ("x" * 300), "File name too long")):
        with pytest.raises(Fault) as fault, held(root / "project" / "run", "wait"):
            pass
        assert str(fault.value).startswith(f"{root / 'project' / 'run'} cannot be made: {why} (")
        assert str(fault.value).endswith("; give another output_root")


def test_a_strangers_folder_is_left_alone(folder):
    folder.path.mkdir()
    (folder.path / "thesis.tex").write_text("mine")
    with pytest.raises(Fault) as fault, folder.locked():
        pass
    assert str(fault.value) == f"{folder.path} exists and is not a run of ours; give another run_name=… or move it away"
    assert (folder.path / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize(
    "change",
    [
        {"num_tasks": 9},
        {"device": "cuda"},
        {"data__root": "b"},
        {"data__download": True},
        {"lla__on_error": "mark"},
        {"lla__enable_sam": False},
        {"lla__runtime": {"abort_if_estimated_hours_over": 2.0}},
    ],
)
def test_what_is_free_on_resume(change, tmp_path):
    refuse_another_identity(CONFIG, changed(**change), tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed: this folder's run has 0, the command says 1"),
        ({"net__width": 4}, "net.width: this folder's run has 3, the command says 4"),
        ({"data__train_size": 6}, "data.train_size: this folder's run has 5, the command says 6"),
        ({"lla__enable_rank": True}, "lla.enable_rank: this folder's run has False, the command says True"),
        ({"lla__every": 2}, "lla.every"),
        ({"lla__tolerance": 0.01}, "lla.tolerance: this folder's run has None, the command says 0.01"),
        ({"lla__compile": False}, "lla.compile"),
        ({"plugins": ["mine"]}, "plugins"),
        ({"num_tasks": 2}, "num_tasks: this folder's run has 3; it may be extended, not cut to 2"),
        ({"learner": {"lr": 0.1, "momentum": 0.9}}, "learner.momentum: this folder's run has 'no such key'"),
    ],
)
def test_another_identity_is_refused_by_key(change, said, tmp_path):
    with pytest.raises(Fault) as fault:
        refuse_another_identity(CONFIG, changed(**change), tmp_path)
    assert said in str(fault.value)


def test_identity_has_no_free_key():
    assert not {"data.root", "data.download", "lla.on_error", "num_tasks", "device"} & identity(CONFIG).keys()


def test_the_record_is_cut_and_a_half_line_is_ignored(folder):
    folder.path.mkdir()
    written = [Written()]
    for value in (1.0, float("inf"), 3.0):
        row = {"task_idx": 0, "loss": value}
        folder.append_row(row)
        written.append(written[-1].after(row))
    with folder.metrics.open("a") as file:
        file.write('{"task_idx": 0, "lo')
    assert [row["loss"] for row in read_rows(folder.path)] == [1.0, float("inf"), 3.0]
    assert [row["loss"] for row in folder.cut_rows(written[2])] == [1.0, float("inf")]
    assert folder.metrics.read_text().count("\n") == 2
    assert folder.cut_rows(Written()) == []
    assert folder.metrics.read_text() == ""


def test_who_only_looks_at_a_folder_turns_no_run_away(tmp_path):
    with (tmp_path / ".lock").open("w") as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        threading.Timer(0.1, fcntl.flock, [look, fcntl.LOCK_UN]).start()
        with held(tmp_path, "…"):
            assert is_held(tmp_path)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "there/DONE"), "Permission denied (there/DONE)"),
    ],
)
def test_a_disk_that_cannot_be_written_is_a_sentence(tmp_path, error, why):
    with pytest.raises(Fault) as caught, disk_faults(tmp_path):
        raise error
    assert (
        str(caught.value)
        == f"cannot write in {tmp_path}: {why}; mend that and start the same command again, what was saved is whole"
    )


@pytest.mark.parametrize(
    "write",
    [
        lambda disk: torch.save({"a": torch.ones(5000)}, disk),
        lambda disk: np.ones(5000).tofile(disk),
        lambda disk: np.save(disk, np.ones(5000)),
        lambda disk: disk.write(b"x" * 100_000) and disk.flush(),
    ],
    ids=["torch", "tofile", "numpy", "python"],
)
def test_a_full_disk_is_a_sentence_whoever_writes(tmp_path, write):
    said = rf"cannot write in {tmp_path}: .*; mend that and start"
    with pytest.raises(Fault, match=said), disk_faults(tmp_path), Path("/dev/full").open("wb") as disk:
        write(disk)


@pytest.mark.parametrize(
    "said",
    [
        "[enforce fail at inline_container.cc:672] . unexpected pos 60544 vs 60464",
        "PytorchStreamWriter failed writing file data/3: file write failed",
    ],
)
def test_torchs_words_for_a_full_disk_are_known(tmp_path, said):
    with pytest.raises(Fault, match="the disk took only a part of a file, it is full"), disk_faults(tmp_path):
        raise RuntimeError(said)


def test_other_errors_of_torch_pass(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"), disk_faults(tmp_path):
        raise RuntimeError("shapes differ")


def test_other_faults_of_the_system_pass(tmp_path):
    with pytest.raises(BrokenPipeError), disk_faults(tmp_path):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
