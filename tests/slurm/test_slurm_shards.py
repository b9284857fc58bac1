"""A measurement in shards on a real SLURM: the bits of one that was made at once, whatever is done to its jobs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from taskshift.compare import differences
from tests.slurm.one_node import NEEDS_SLURM, SECONDS, called, command, launched, processes_of, record_of, restarts, until

pytestmark = NEEDS_SLURM

FINER = ("task=1", "lla.planes.grid_resolution=25", "lla.planes.chunk_size=8", "lla.spectrum.esd.num_probes=6")
JOBS = ("cluster=slurm", "resources=gpu", "hydra.launcher.cpus=1", "hydra.launcher.array_parallelism=3")


@pytest.fixture
def run(place) -> Path:
    trained = called(command("run_name=trained"), place)
    assert trained.returncode == 0, trained.stderr
    return place / "outputs/loss_landscape_taskshift/own/trained"


def measure(run: Path, *words: str) -> list[str]:
    return [sys.executable, "-c", "from taskshift.cli import main; main()", "measure", str(run), *FINER, *words]


def test_a_requeued_and_a_killed_shard_end_with_the_bits_of_the_whole(cluster, place, run):
    measuring = launched(measure(run, "name=shards", "lla.shards=4", *JOBS), place)
    folder = run / "measured/shards"
    noted = folder / "jobs/queued.json"
    until(noted.exists)
    prepare, array, _ = json.loads(noted.read_text())["jobs"]
    requeued, killed = f"{array}_0", f"{array}_1"
    subprocess.run(["scontrol", "hold", array], check=True)
    until(lambda: record_of(prepare)["JobState"] == "COMPLETED")
    (place / "slow").write_text("20")
    subprocess.run(["scontrol", "release", array], check=True)
    until(lambda: all(processes_of(job) for job in (requeued, killed)))
    subprocess.run(["scontrol", "requeue", requeued], check=True)
    for process in processes_of(killed):
        os.kill(process, signal.SIGKILL)
    until(lambda: restarts(requeued) == 1)
    (place / "slow").unlink()
    assert measuring.wait(SECONDS) == 1
    assert record_of(killed)["JobState"] == "FAILED"
    marks = sorted(path.stem for path in folder.glob("task_0001_own/.scratch/shards/*.json"))
    assert marks == ["0_of_4", "2_of_4", "3_of_4"]

    again = called(measure(run, "name=shards", "lla.shards=4", *JOBS), place)
    assert again.returncode == 0, again.stderr
    _, missing, _ = json.loads(noted.read_text())["jobs"]
    assert "ArrayTaskId" not in record_of(missing)  # one job, of the one shard
    assert record_of(missing)["JobState"] == "COMPLETED"
    whole = called(measure(run, "name=whole"), place)
    assert whole.returncode == 0, whole.stderr
    assert differences(folder, run / "measured/whole") == []
