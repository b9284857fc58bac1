"""The W&B mirror: numbers and the config alone, one complete file, and no failure that reaches the run."""

import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from taskshift.recorders import wandb_mirror as mirror
from taskshift.recorders.numeric_rows import scalar
from taskshift.recorders.recorder import Opening
from taskshift.recorders.wandb_mirror import WandB
from taskshift.recorders.within import within
from tests.framework import read_wandb
from tests.framework.fake_wandb_server import fake_server

CONFIG = {"sweep_name": None, "wandb": {"group": None, "name": None}, "seed": 0, "data": {"root": "somewhere"}, "plugins": []}
ROWS = [{"global_epoch": n, "task_idx": n // 2, "epoch_loss": 1.0 / (n + 1), "flag": True} for n in range(4)]


@pytest.fixture(autouse=True)
def _no_account(monkeypatch, tmp_path):
    """Neither an account nor settings of whoever runs the tests; an unused port instead of W&B's server."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{_unused_port()}")
    yield
    if wandb := sys.modules.get("wandb"):
        wandb.teardown()


def _unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _mirrored(folder, rows=ROWS, earlier=(), mode="offline", between=lambda: None):
    folder.mkdir(exist_ok=True)
    recorder = WandB(project="project", entity=None, notes="", mode=mode)
    recorder.open(Opening(folder, CONFIG, "name", list(earlier), num_tasks=2, epochs=2))
    for number, row in enumerate(rows):
        recorder.record(row)
        if number == 0:
            between()
    recorder.close(ok=True)
    return recorder


def _said(caplog):
    return [one for one in caplog.records if one.name.startswith("taskshift")]


def _whole_file(folder):
    """The .wandb file, once W&B's helper has written its end."""
    file, patience = read_wandb.file_in(folder), time.monotonic() + 10
    while not read_wandb.kinds(file)["exit"] and time.monotonic() < patience:
        time.sleep(0.02)
    return file


def _helpers():
    """The processes of W&B that this one began, and that live."""
    children = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "pid=,comm="], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in children.splitlines() if "wandb-core" in line and "defunct" not in line]


def _logged(folder):
    return [{key: value for key, value in row.items() if key[0] != "_"} for row in read_wandb.rows(_whole_file(folder))]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1),
        (True, 1),
        (1.5, 1.5),
        (np.float32(2), 2.0),
        (np.int64(3), 3),
        (np.bool_(True), 1),
        (np.array(6.0), 6.0),
        (torch.tensor(4.0), 4.0),
        (torch.tensor(7.0, requires_grad=True), 7.0),
        (torch.tensor(5, dtype=torch.bfloat16), 5.0),
        (float("inf"), math.inf),
    ],
)
def test_numbers_of_every_library_are_unwrapped(value, number):
    assert scalar("key", value) == number
    assert type(scalar("key", value)) in (int, float)


def test_a_diverging_net_is_a_result():
    assert math.isnan(scalar("key", torch.tensor(float("nan"))))


@pytest.mark.parametrize("value", ["1", None, [1], {}, 1j, np.arange(2), torch.arange(2), torch.ones(1), object()])
def test_what_is_no_number_is_refused_by_name(value):
    with pytest.raises(TypeError, match=r"the metric 'spectrum/trace' is .*; a row holds single numbers"):
        scalar("spectrum/trace", value)


def test_offline_file_holds_numbers_and_config_alone(tmp_path):
    _mirrored(tmp_path / "run")
    file = _whole_file(tmp_path / "run")
    assert set(read_wandb.kinds(file)) <= {
        "header",
        "run",
        "config",
        "telemetry",
        "metric",
        "history",
        "summary",
        "exit",
        "footer",
    }
    assert _logged(tmp_path / "run") == [row | {"flag": 1} for row in ROWS]
    assert all(isinstance(value, (int, float)) for row in read_wandb.rows(file) for value in row.values())
    assert read_wandb.config(file) == CONFIG
    assert not list(file.parent.glob("files/*"))


def test_file_says_nothing_of_the_machine(tmp_path):
    _mirrored(tmp_path / "run", between=lambda: print("words on the terminal"))
    whole = _whole_file(tmp_path / "run")
    sent = [whole, *(file for file in (whole.parent / "files").rglob("*") if file.is_file())]
    content = b"".join(file.read_bytes() for file in sent)
    for fact in ("words on the terminal", socket.gethostname(), sys.executable, str(Path(__file__).parent), "pytest", "github"):
        assert fact.encode() not in content


def test_nothing_is_opened_before_the_first_row(tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it fails from here on
    _mirrored(tmp_path / "run", rows=[])
    assert not _said(caplog)
    _mirrored(tmp_path / "run", rows=ROWS[:1])
    assert "W&B failed in starting" in caplog.text


def test_infinities_and_nan_are_kept(tmp_path):
    _mirrored(tmp_path / "run", [{"global_epoch": 0, "task_idx": 0, "a": float("inf"), "b": float("nan")}])
    (row,) = _logged(tmp_path / "run")
    assert math.isinf(float(row["a"]))
    assert math.isnan(float(row["b"]))


def test_a_resumed_run_is_one_complete_file_of_the_same_run(tmp_path):
    _mirrored(tmp_path / "run", ROWS[:2])
    first = read_wandb.file_in(tmp_path / "run").name
    _mirrored(tmp_path / "run", ROWS[2:], earlier=ROWS[:2])
    assert read_wandb.file_in(tmp_path / "run").name == first
    assert [row["global_epoch"] for row in _logged(tmp_path / "run")] == [0, 1, 2, 3]


def test_two_rows_of_one_epoch_are_both_kept(tmp_path):
    rows = [{"global_epoch": 3, "task_idx": 0, "epoch_loss": 1.0}, {"global_epoch": 3, "task_idx": 0, "task/seconds": 2.0}]
    _mirrored(tmp_path / "run", rows)
    assert _logged(tmp_path / "run") == rows


def test_two_runs_of_one_process_are_two_runs(tmp_path):
    recorders = {name: WandB("project", None, "", "offline") for name in ("one", "two")}
    for name, recorder in recorders.items():
        (tmp_path / name).mkdir()
        recorder.open(Opening(tmp_path / name, CONFIG, name, [], num_tasks=1, epochs=1))
        recorder.record(ROWS[0])  # the first is still open when the second begins
    for recorder in recorders.values():
        recorder.close(ok=True)
    assert all(len(_logged(tmp_path / name)) == 1 for name in recorders)


def test_disabled_writes_nothing(tmp_path):
    _mirrored(tmp_path / "run", mode="disabled")
    assert not (tmp_path / "run" / "wandb").exists()


def test_without_an_account_the_mirror_goes_offline(tmp_path, caplog):
    _mirrored(tmp_path / "run", mode="online")
    assert [one.message for one in _said(caplog)] == [
        "W&B goes offline: no account is set up here; `wandb login`, then `wandb sync` on the run's wandb folder"
    ]
    assert len(_logged(tmp_path / "run")) == 4


def test_without_a_network_the_mirror_goes_offline(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setitem(mirror.NUMBERS_ALONE, "init_timeout", 1.0)
    _mirrored(tmp_path / "run", mode="online")
    assert [one.levelno for one in _said(caplog)] == [logging.WARNING]
    assert "W&B failed in starting online" in caplog.text
    assert len(_logged(tmp_path / "run")) == 4


def test_a_server_gets_the_rows_and_no_facts(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with fake_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        _mirrored(tmp_path / "run", mode="online")
        sent = "\n".join(body for _, body in server.received)
    assert "epoch_loss" in sent
    assert "upsertBucket" in sent
    for fact in (socket.gethostname(), sys.executable, "wandb-metadata", "requirements.txt", "output.log", "diff.patch"):
        assert fact not in sent.replace(json.dumps(str(tmp_path))[1:-1], "")


def test_a_server_that_dies_does_not_hold_the_end(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setitem(mirror.NUMBERS_ALONE, "finish_timeout", 0.5)
    with fake_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        recorder = WandB("project", None, "", "online")
        recorder.open(Opening(tmp_path, CONFIG, "name", [], num_tasks=1, epochs=1))
        recorder.record(ROWS[0])
    recorder.record(ROWS[1])
    recorder.close(ok=True)  # without the switch this would never return


def test_a_killed_helper_costs_one_warning(tmp_path, caplog):
    def kill_helper():
        helpers = _helpers()
        assert helpers
        for pid in helpers:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)

    _mirrored(tmp_path / "run", between=kill_helper)
    assert [one.levelno for one in _said(caplog)] == [logging.WARNING]
    assert "the run goes on without" in caplog.text


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """Puts a program in the place of W&B's helper, with a short patience."""
    from wandb.sdk.lib.service import service_process

    monkeypatch.setattr(mirror, "SECONDS_TO_ANSWER", 0.5)
    monkeypatch.setattr(mirror, "SECONDS_TO_END", 0.5)

    def put(program: str, mode: int = 0o755) -> None:
        path = tmp_path / "helper"
        path.write_text(program)
        path.chmod(mode)
        monkeypatch.setattr(service_process, "get_core_path", lambda: str(path))

    return put


@pytest.mark.parametrize(
    ("program", "mode", "why"),
    [
        ("#!/bin/sh\nexit 1\n", 0o755, "ServicePollForTokenError: wandb-core exited with code 1"),
        ("#!/bin/sh\nsleep 5\n", 0o755, "TimeoutError: no answer within 0.5 seconds"),
        ("no program", 0o644, "PermissionError"),
    ],
    ids=["ends at once", "never answers", "cannot be started"],
)
def test_a_helper_that_cannot_start_holds_nothing_up(program, mode, why, helper, tmp_path, caplog):
    helper(program, mode)
    begin = time.monotonic()
    within(10, lambda: _mirrored(tmp_path / "run"))
    assert time.monotonic() - begin < 5
    (said,) = _said(caplog)
    assert said.message.startswith(f"W&B failed in starting, and the run goes on without: {why}")


def test_a_helper_that_stops_answering_does_not_hold_the_end(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(mirror, "SECONDS_TO_END", 0.5)
    stopped = []

    def stop_helper():
        monkeypatch.setattr(mirror, "SECONDS_TO_ANSWER", 3.0)  # not before: W&B may start slowly
        stopped.extend(_helpers())
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)

    within(30, lambda: _mirrored(tmp_path / "run", between=stop_helper))
    assert [one.message for one in _said(caplog)] == [
        "W&B failed in closing, and the run goes on without: TimeoutError: no answer within 3 seconds"
    ]
    assert stopped
    assert not set(stopped) & set(_helpers())


def test_what_a_call_returns_or_raises_comes_through():
    assert within(5, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 / 0)
    with pytest.raises(TimeoutError, match=r"no answer within 0.05 seconds"):
        within(0.05, lambda: time.sleep(1))


def test_a_mirror_that_was_never_finished_is_made_whole_when_the_run_ends(tmp_path):
    _mirrored(tmp_path / "run")
    (tmp_path / "run" / "wandb" / "finished.txt").unlink()
    read_wandb.file_in(tmp_path / "run").write_bytes(b"")  # as a process and helper that die leave it
    _mirrored(tmp_path / "run", rows=[], earlier=ROWS)
    assert len(_logged(tmp_path / "run")) == 4


def test_a_finished_mirror_is_not_opened_again(tmp_path, monkeypatch, caplog):
    _mirrored(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it fails from here on
    _mirrored(tmp_path / "run", rows=[], earlier=ROWS)
    assert not _said(caplog)


@pytest.mark.parametrize("damage", ["", "x\n", "../../elsewhere"])
def test_a_damaged_id_is_replaced(damage, tmp_path, caplog):
    (tmp_path / "run" / "wandb").mkdir(parents=True)
    (tmp_path / "run" / "wandb" / "run_id.txt").write_text(damage)
    _mirrored(tmp_path / "run")
    assert len(_logged(tmp_path / "run")) == 4
    assert not _said(caplog)


def test_an_unknown_switch_means_no_mirror(tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(mirror.NUMBERS_ALONE, "x_disable_everything", True)
    _mirrored(tmp_path / "run")
    assert "no longer knows x_disable_everything" in caplog.text
    assert _said(caplog)[0].levelno == logging.ERROR
    assert not (tmp_path / "run" / "wandb").exists()


def test_only_the_recorder_imports_wandb():
    sources = Path(mirror.__file__).parents[2].rglob("*.py")
    found = {path.name for path in sources if "import wandb" in path.read_text()}
    assert found == {"wandb_mirror.py"}
