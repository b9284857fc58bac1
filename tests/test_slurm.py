"""Sweeps on a real SLURM of one node: whatever is done to their jobs, they end with the bits of a sweep in one process."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from taskshift.compare import differences
from taskshift.run_folder import read_rows
from taskshift.sweeps.states import states
from taskshift.sweeps.sweep_folder import SweepFolder

ROOT = Path(__file__).parents[1]
ABSENT = [name for name in ("sbatch", "munged") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(ABSENT), reason=f"{', '.join(ABSENT)} is not installed; Debian has slurm-wlm and munge"),
    pytest.mark.skipif(os.geteuid() != 0, reason="SLURM's daemons are started as root"),
]

NET = '''
import time
from pathlib import Path

from torch import nn


class Net(nn.Module):
    """A small net that takes its time while a file `pause` says how much, and fails where a file `fail` names its seed."""

    def __init__(self, input_shape, num_outputs, seed):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, num_outputs))
        self.seed = seed

    def forward(self, inputs):
        if self.training:
            if Path("fail").exists() and self.seed == int(Path("fail").read_text()):
                raise RuntimeError("failing on purpose")
            if Path("pause").exists():
                time.sleep(float(Path("pause").read_text()))
        return self.layers(inputs)
'''
OPTIONS = (
    "debug=tiny", "plugins=[taking_time]", "net=own", "net._target_=taking_time.Net", "use_wandb=false", "num_threads=1",
    "lla.planes.grid_resolution=5", "lla.enable_sam=false", "checkpoints.every_seconds=1",
)  # fmt: skip
GRID = ("learner=backprop,l2", "seed=range(6)")
SECONDS = 300


@contextmanager
def slurm(*options: str) -> Iterator[None]:
    base = Path(tempfile.mkdtemp(prefix="slurm"))  # pytest's own folders are closed to others, which munged does not accept
    subprocess.run([ROOT / "scripts/slurm/up.sh", base, *options], check=True, timeout=60)
    os.environ["SLURM_CONF"] = str(base / "etc" / "slurm.conf")
    try:
        yield
    finally:
        subprocess.run([ROOT / "scripts/slurm/down.sh", base], check=True, timeout=60)
        del os.environ["SLURM_CONF"]
        shutil.rmtree(base)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with slurm():
        yield


@pytest.fixture
def accounting_cluster() -> Iterator[None]:
    absent = [name for name in ("slurmdbd", "mariadbd") if shutil.which(name) is None]
    if absent:
        pytest.skip(f"{', '.join(absent)} is not installed; Debian has slurmdbd and mariadb-server-core")
    with slurm("--accounting"):
        yield


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / "taking_time.py").write_text(NET)
    return tmp_path


def command(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *OPTIONS, *words]


def on_slurm(*words: str, grid: Sequence[str] = GRID) -> list[str]:
    resources = ("resources=gpu", "hydra.launcher.cpus=1", "hydra.launcher.array_parallelism=3")
    return command("cluster=slurm", *resources, "sweep_name=queued", *grid, *words)


def called(words: list[str], place: Path) -> subprocess.CompletedProcess:
    return subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=SECONDS)


def until(what: Callable[[], object]) -> object:
    end = time.monotonic() + SECONDS
    while not (found := what()):
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(2)
    return found


def record_of(job: str) -> dict[str, str]:
    """What the scheduler says of a job."""
    answer = subprocess.run(["scontrol", "--oneliner", "show", "job", job], capture_output=True, text=True, check=True).stdout
    return dict(re.findall(r"(\w+)=(\S+)", answer))


def restarts(job: str) -> int:
    return int(record_of(job)["Restarts"])


def restarted() -> set[str]:
    """The jobs that were begun more than once, by one question: many keep the scheduler from its work."""
    answer = subprocess.run(["scontrol", "--oneliner", "show", "job"], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"ArrayJobId=(\d+) ArrayTaskId=(\d+) .*?Restarts=([1-9])", answer)
    return {f"{array}_{number}" for array, number, _ in found}


def in_second_task(sweep: SweepFolder, not_among: set[str] = frozenset()) -> str | None:
    """A run that is at work on its second task."""
    for key, entry in sweep.runs().items():
        rows = read_rows(sweep.run_folder(key))
        at_work = rows and rows[-1]["task_idx"] == 1 and not (sweep.run_folder(key) / "DONE").exists()
        if key not in not_among and at_work and record_of(entry["job"])["JobState"] == "RUNNING":
            return key
    return None


def processes_of(job: str) -> list[int]:
    """The Python processes of a job on this node."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue
        array, _, number = job.partition("_")
        names = (f"SLURM_ARRAY_JOB_ID={array}".encode(), f"SLURM_ARRAY_TASK_ID={number}".encode())
        if b"submitit" in words and b"python" in words.split(b"\0")[0] and set(names) <= set(environment.split(b"\0")):
            found.append(int(folder.name))
    return found


def test_accounting_tells_how_jobs_ended(accounting_cluster, place):
    (place / "pause").write_text("0.3")
    (place / "fail").write_text("1")
    sweep = SweepFolder(place / "outputs/loss_landscape_taskshift/sweeps/queued")
    launcher = subprocess.Popen(on_slurm(grid=["seed=0,1"]), cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: sweep.file.exists() and all(entry["job"] for entry in sweep.runs().values()))
    killed = until(lambda: in_second_task(sweep))
    for process in until(lambda: processes_of(sweep.runs()[killed]["job"])):
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
    sweep = SweepFolder(place / "outputs/loss_landscape_taskshift/sweeps/queued")
    (place / "pause").write_text("0.15")
    (place / "fail").write_text("4")

    launcher = subprocess.Popen(on_slurm(), cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: sweep.file.exists() and all(entry["job"] for entry in sweep.runs().values()))
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    jobs = {key: entry["job"] for key, entry in sweep.runs().items()}
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
    until(lambda: in_second_task(sweep, {requeued, killed}))
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
    assert [record_of(jobs[key])["JobState"] for key in failed] == ["FAILED", "FAILED"]
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
    sweep = SweepFolder(place / "outputs/loss_landscape_taskshift/sweeps/queued")
    jobs = [entry["job"] for entry in json.loads(sweep.file.read_text())["runs"].values()]
    assert {record_of(job)["JobState"] for job in jobs} <= {"PENDING", "RUNNING"}
    subprocess.run(["scancel", *{job.partition("_")[0] for job in jobs}], check=True)
