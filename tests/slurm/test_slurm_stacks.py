"""Stacks on a real SLURM: a job carries several runs, and each of them stands for itself in status, kills and requeues."""

import os
import signal
import subprocess

import pytest

from taskshift.compare import differences
from taskshift.sweeps.states import states
from tests.slurm.one_node import (
    NEEDS_SLURM,
    called,
    command,
    end_of,
    in_second_task,
    launched,
    on_slurm,
    processes_of,
    queued_by,
    restarts,
    sweep_in,
    until,
)

pytestmark = NEEDS_SLURM

GRID = ("learner=backprop,l2", "seed=range(3)")
STACKED = "hydra.launcher.stack=3"


@pytest.mark.timeout(900)
def test_killed_and_requeued_stacks_end_with_the_bits_of_stacks_in_one_process(cluster, place):
    sweep = sweep_in(place)
    (place / "pause").write_text("0.1")
    (place / "slow").write_text("0.1")  # the tests in between, however the steps are carried out
    launcher = launched(on_slurm(STACKED, grid=GRID), place)
    jobs = queued_by(sweep)
    launcher.kill()
    launcher.wait()
    by_job = {job: {entry["label"] for key, entry in sweep.runs().items() if jobs[key] == job} for job in jobs.values()}
    expected = [{f"learner={learner} seed={seed}" for seed in range(3)} for learner in ("backprop", "l2")]
    assert sorted(by_job.values(), key=min) == expected

    killed = jobs[until(lambda: in_second_task(sweep))]
    for process in until(lambda: processes_of(killed)):
        os.kill(process, signal.SIGKILL)
    until(lambda: "running" not in {states(sweep)[key].state for key in jobs if jobs[key] == killed})
    assert {states(sweep)[key].state for key in jobs if jobs[key] == killed} <= {"killed", "done"}
    assert "killed" in {states(sweep)[key].state for key in jobs if jobs[key] == killed}

    [requeued] = set(jobs.values()) - {killed}
    subprocess.run(["scontrol", "requeue", requeued], check=True)
    until(lambda: restarts(requeued) == 1)
    for name in ("pause", "slow"):
        (place / name).unlink()

    again = called(on_slurm(STACKED, grid=GRID), place)
    assert again.returncode == 0, again.stderr
    assert {state.state for state in states(sweep).values()} == {"done"}
    now = {key: entry["job"] for key, entry in sweep.runs().items()}
    assert {key for key in jobs if now[key] != jobs[key]} <= {key for key in jobs if jobs[key] == killed}

    reference = called(command("sweep_name=reference", *GRID, "--multirun", STACKED), place)
    assert reference.returncode == 0, reference.stderr
    for key in jobs:
        assert differences(sweep.run_folder(key), sweep.path.with_name("reference") / key) == []


def test_a_member_that_fails_leaves_the_others_and_fails_the_job(cluster, place):
    (place / "fail").write_text("1")
    failing = called(on_slurm(STACKED, grid=["seed=range(3)"]), place)
    assert failing.returncode == 1
    assert "1 of 3 runs are not done" in failing.stderr
    assert "seed=1: failed" in failing.stderr
    sweep = sweep_in(place)
    [job] = {entry["job"] for entry in sweep.runs().values()}
    assert end_of(job) == "FAILED"
    assert {entry["label"]: states(sweep)[key].state for key, entry in sweep.runs().items()} == {
        "seed=0": "done",
        "seed=1": "failed",
        "seed=2": "done",
    }
