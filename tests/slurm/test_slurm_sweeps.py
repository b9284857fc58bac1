"""Sweeps on a real SLURM of one node: whatever is done to their jobs, they end with the bits of a sweep in one process."""

import json
import os
import re
import shutil
import signal
import subprocess

import pytest

from taskshift.compare import differences
from taskshift.sweeps.slurm import stderr_of
from taskshift.sweeps.states import states
from tests.slurm.one_node import (
    GRID,
    NEEDS_SLURM,
    SECONDS,
    called,
    command,
    end_of,
    in_second_task,
    known_arrays,
    launched,
    number_running,
    on_slurm,
    processes_of,
    queued_by,
    record_of,
    restarted,
    restarts,
    sweep_in,
    until,
)

pytestmark = NEEDS_SLURM


def test_accounting_tells_how_jobs_ended(accounting_cluster, place):
    (place / "pause").write_text("0.3")
    (place / "fail").write_text("1")
    sweep = sweep_in(place)
    launcher = launched(on_slurm(grid=["seed=0,1"]), place)
    jobs = queued_by(sweep)
    killed = until(lambda: in_second_task(sweep))
    for process in until(lambda: processes_of(jobs[killed])):
        os.kill(process, signal.SIGKILL)
    assert launcher.wait(SECONDS) == 1
    assert {entry["label"]: states(sweep)[key].state for key, entry in sweep.runs().items()} == {
        "seed=0": "killed",
        "seed=1": "failed",
    }
    for entry in sweep.runs().values():
        told = subprocess.run(
            ["sacct", "-X", "-n", "-P", "-o", "State", "-j", entry["job"]], capture_output=True, text=True, check=True
        )
        assert told.stdout.strip() == "FAILED"


@pytest.mark.timeout(900)
def test_requeued_preempted_killed_and_failing_jobs_end_with_the_bits_of_one_process(cluster, place):
    sweep = sweep_in(place)
    (place / "pause").write_text("0.15")
    (place / "fail").write_text("4")

    launcher = launched(on_slurm(), place)
    jobs = queued_by(sweep)
    launcher.kill()
    launcher.wait()
    assert len(jobs) == 12

    requeued = until(lambda: in_second_task(sweep))
    subprocess.run(["scontrol", "requeue", jobs[requeued]], check=True)
    until(lambda: restarts(jobs[requeued]) == 1)

    killed = until(lambda: in_second_task(sweep, {requeued}))
    for process in until(lambda: processes_of(jobs[killed])):
        os.kill(process, signal.SIGKILL)
    until(lambda: record_of(jobs[killed])["JobState"] == "FAILED")
    assert states(sweep)[killed].state == "killed"

    (place / "pause").write_text("5")  # preempting takes the scheduler a while: nobody may come to an end meanwhile
    until(lambda: number_running() == 3)
    subprocess.run(["sbatch", "-p", "prio", "--gres=gpu:4", "--output=/dev/null", "--wrap", "sleep 1"], check=True, cwd=place)
    until(lambda: restarted() - {jobs[requeued], jobs[killed]})

    (place / "pause").unlink()
    again = called(on_slurm(), place)
    assert again.returncode == 1
    assert "RuntimeError: failing on purpose" in again.stderr
    assert "2 of 12 runs are not done" in again.stderr
    assert "12 runs, 1 to carry out" in again.stdout  # the killed one; what the first launcher had queued is left alone
    assert [key for key, entry in sweep.runs().items() if entry["job"] != jobs[key]] == [killed]
    failed = [key for key in jobs if (sweep.run_folder(key) / "FAILED").exists()]
    assert [end_of(jobs[key]) for key in failed] == ["FAILED", "FAILED"]
    assert all("RuntimeError: failing on purpose" in (sweep.run_folder(key) / "FAILED").read_text() for key in failed)

    (place / "fail").unlink()
    last = called(on_slurm("hydra.launcher.retry_failed=true"), place)
    assert last.returncode == 0, last.stderr
    assert "12 runs, 2 to carry out" in last.stdout

    reference = called(command("sweep_name=reference", *GRID, "--multirun"), place)
    assert reference.returncode == 0, reference.stderr
    for key in jobs:
        assert differences(sweep.run_folder(key), sweep.path.with_name("reference") / key) == []


def test_what_slurm_refuses_is_one_sentence(cluster, place):
    for words, said in (
        (("hydra.launcher.partition=nowhere",), "invalid partition specified: nowhere"),
        (("hydra.launcher.gpus=9",), "Requested node configuration is not available"),
    ):
        refused = called(on_slurm(*words), place)
        assert refused.returncode == 1
        assert said in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr


def test_a_detached_launcher_returns_at_once(cluster, place):
    (place / "pause").write_text("0.5")
    detached = called(on_slurm("hydra.launcher.detach=true"), place)
    assert detached.returncode == 0, detached.stderr
    sweep = sweep_in(place)
    jobs = [entry["job"] for entry in json.loads(sweep.file.read_text())["runs"].values()]
    assert {record_of(job)["JobState"] for job in jobs} <= {"PENDING", "RUNNING"}
    subprocess.run(["scancel", *{job.partition("_")[0] for job in jobs}], check=True)


def test_a_launcher_killed_while_it_queues_queues_nothing_twice(cluster, place, monkeypatch):
    sbatch = place / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(f'#!/bin/sh\n{shutil.which("sbatch")} "$@" >{place}/answer\nkill -9 $PPID\n')
    sbatch.chmod(0o755)
    before = known_arrays()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{sbatch.parent}:{os.environ['PATH']}")
        assert called(on_slurm(grid=["seed=0,1"]), place).returncode == -signal.SIGKILL
    lost = re.search(r"\d+", (place / "answer").read_text())[0]
    sweep = sweep_in(place)
    assert [entry["job"] for entry in sweep.runs().values()] == [None, None]

    again = called(on_slurm(grid=["seed=0,1"]), place)
    assert again.returncode == 0, again.stderr
    lost_states = {record_of(f"{lost}_{number}")["JobState"] for number in (0, 1)}
    assert lost_states <= {"FAILED", "CANCELLED"}  # before they began or after: submitit had told them no run yet
    assert {end_of(entry["job"]) for entry in sweep.runs().values()} == {"COMPLETED"}
    arrays = {entry["job"].partition("_")[0] for entry in sweep.runs().values()}
    assert known_arrays() - before == arrays | {lost}
    assert len(arrays) == 1


def test_jobs_out_of_time_and_on_a_node_that_fails_end_with_the_bits_of_one_process(cluster, place):
    (place / "pause").write_text("1.5")  # a minute of training and more
    launcher = launched(on_slurm("hydra.launcher.timeout_min=1", grid=["seed=0,1"]), place)
    sweep = sweep_in(place)
    jobs = queued_by(sweep)
    until(lambda: all(restarts(job) >= 1 for job in jobs.values()))
    assert all("this job is timed-out" in stderr_of(sweep.submitted, job).read_text() for job in jobs.values())

    until(lambda: all(record_of(job)["JobState"] == "RUNNING" for job in jobs.values()))
    before = {job: restarts(job) for job in jobs.values()}
    for state in ("down", "resume"):
        subprocess.run(["scontrol", "update", "nodename=node1", f"state={state}", "reason=test"], check=True)
    until(lambda: all(restarts(job) > before[job] for job in jobs.values()))
    assert all("DUE TO NODE FAILURE" in stderr_of(sweep.submitted, job).read_text() for job in jobs.values())

    (place / "pause").unlink()
    assert launcher.wait(SECONDS) == 0
    reference = called(command("sweep_name=reference", "seed=0,1", "--multirun"), place)
    assert reference.returncode == 0, reference.stderr
    for key in jobs:
        assert differences(sweep.run_folder(key), sweep.path.with_name("reference") / key) == []
