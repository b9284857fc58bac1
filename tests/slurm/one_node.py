"""A real SLURM of one node, and what tests ask of it and do to it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from taskshift.sweeps.sweep_folder import SweepFolder

ROOT = Path(__file__).parents[2]
ABSENT = [name for name in ("sbatch", "munged") if shutil.which(name) is None]
NEEDS_SLURM = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(ABSENT), reason=f"{', '.join(ABSENT)} is not installed; Debian has slurm-wlm and munge"),
    pytest.mark.skipif(os.geteuid() != 0, reason="SLURM's daemons are started as root"),
]
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


def command(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *OPTIONS, *words]


def on_slurm(*words: str, grid: Sequence[str] = GRID) -> list[str]:
    resources = ("resources=gpu", "hydra.launcher.cpus=1", "hydra.launcher.array_parallelism=3")
    return command("cluster=slurm", *resources, "sweep_name=queued", *grid, *words)


def sweep_in(place: Path, name: str = "queued") -> SweepFolder:
    return SweepFolder(place / "outputs/loss_landscape_taskshift/sweeps" / name)


def called(words: Sequence[str], place: Path) -> subprocess.CompletedProcess:
    return subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=SECONDS)


def launched(words: Sequence[str], place: Path) -> subprocess.Popen:
    """A command that goes on in the background."""
    return subprocess.Popen(words, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def until(what: Callable[[], object]) -> object:
    end = time.monotonic() + SECONDS
    while not (found := what()):
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(2)
    return found


def end_of(job: str) -> str:
    """The state in which a job ends: a run is done a little before the process that carried it out."""
    under_way = {"PENDING", "RUNNING", "COMPLETING"}
    return str(until(lambda: {record_of(job)["JobState"]} - under_way).pop())


def queued_by(sweep: SweepFolder) -> dict[str, str]:
    """The job of each run, once all of them have one."""
    until(lambda: sweep.file.exists() and all(entry["job"] for entry in sweep.runs().values()))
    return {key: entry["job"] for key, entry in sweep.runs().items()}


def record_of(job: str) -> dict[str, str]:
    """What the scheduler says of a job."""
    answer = subprocess.run(["scontrol", "--oneliner", "show", "job", job], capture_output=True, text=True, check=True).stdout
    return dict(re.findall(r"(\w+)=(\S+)", answer))


def restarts(job: str) -> int:
    return int(record_of(job)["Restarts"])


def all_jobs() -> str:
    """What the scheduler says of every job it still knows, by one question: many keep it from its work."""
    return subprocess.run(["scontrol", "--oneliner", "show", "job"], capture_output=True, text=True, check=True).stdout


def known_arrays() -> set[str]:
    return set(re.findall(r"ArrayJobId=(\d+)", all_jobs()))


def restarted() -> set[str]:
    """The jobs that were begun more than once."""
    found = re.findall(r"ArrayJobId=(\d+) ArrayTaskId=(\d+) .*?Restarts=([1-9])", all_jobs())
    return {f"{array}_{number}" for array, number, _ in found}


def number_running() -> int:
    asked = subprocess.run(["squeue", "--noheader", "--array", "--states=RUNNING"], capture_output=True, text=True, check=True)
    return len(asked.stdout.splitlines())


def in_second_task(sweep: SweepFolder, not_among: set[str] = frozenset()) -> str | None:
    """A run that is at work on its second task."""
    from taskshift.run_folder import read_rows

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
