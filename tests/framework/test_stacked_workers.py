"""Stacks in worker processes of this machine, killed in the middle: every tool reads their runs as it reads any other's."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from taskshift.compare import differences
from taskshift.sweeps.states import states
from taskshift.sweeps.sweep_folder import SweepFolder

ROOT = Path(__file__).parents[2]
WORDS = (
    "debug=tiny", "use_wandb=false", "num_threads=1", "num_tasks=6", "checkpoints.every_seconds=0", "lla.enable_planes=false",
    "lla.enable_sam=false", "lla.enable_spectrum=false", "seed=range(4)", "hydra.launcher.stack=2", "--multirun",
)  # fmt: skip
SECONDS = 300


def command(*words):
    return [sys.executable, str(ROOT / "train.py"), *WORDS, *words]


def workers_of(process):
    """The processes that carry out runs for it: grandchildren, as submitit has one between."""
    return [worker for between in children_of(process) for worker in children_of(between)]


def children_of(process):
    told = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True).stdout
    return [int(number) for number in told.split()]


def until(what):
    end = time.monotonic() + SECONDS
    while not (found := what()):
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.1)
    return found


def taskshift(*words, here):
    done = subprocess.run([sys.executable, "-m", "taskshift.cli", *map(str, words)], cwd=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_workers_members_go_on_and_all_tools_read_them(tmp_path):
    local = command("cluster=local", "hydra.launcher.workers=2", "sweep_name=local")
    sweep = SweepFolder(tmp_path / "outputs/loss_landscape_taskshift/sweeps/local")
    with (tmp_path / "said").open("w") as said:
        launcher = subprocess.Popen(local, cwd=tmp_path, stdout=said, stderr=said)

    def begun():
        """Whether either worker has ended a task of its runs."""
        runs = sweep.runs() if sweep.file.exists() else {}
        return (
            len({run["job"] for key, run in runs.items() if (sweep.run_folder(key) / "checkpoints/task_0000.pt").exists()}) == 2
        )

    assert until(begun)
    victim = until(lambda: workers_of(launcher.pid))[0]
    os.kill(victim, signal.SIGKILL)
    launcher.wait(SECONDS)
    assert len({entry["job"] for entry in sweep.runs().values()}) == 2, "two processes with two runs each"
    assert "interrupted" in {state.state for state in states(sweep).values()}
    assert "interrupted" in taskshift("status", sweep.path, here=tmp_path)

    again = subprocess.run(local, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert {state.state for state in states(sweep).values()} == {"done"}
    here = subprocess.run(command("sweep_name=here"), cwd=tmp_path, capture_output=True, text=True)
    assert here.returncode == 0, here.stderr
    for key in sweep.runs():
        assert differences(sweep.run_folder(key), sweep.path.with_name("here") / key) == []
        assert json.loads((sweep.run_folder(key) / "DONE").read_text())["num_tasks"] == 6

    taskshift("collect", sweep.path, "-o", tmp_path / "all.parquet", here=tmp_path)
    told = duckdb.sql(f"SELECT seed, count(*) FROM '{tmp_path}/all.parquet' WHERE metric = 'task_last_epoch_accuracy' GROUP BY 1")
    assert sorted(told.fetchall()) == [(seed, 6) for seed in range(4)]
    drawn = taskshift("plot", sweep.path, "--y", "task_last_epoch_accuracy", here=tmp_path)
    assert (tmp_path / drawn.strip().splitlines()[-1]).exists()
