"""What the launcher costs: seconds until a large sweep's runs are ready to be queued, and seconds added to a run.

python scripts/bench_sweep.py [--runs 200] [--repeats 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN = ("debug=tiny", "use_wandb=false", "recorder=none", "num_threads=1", "lla.enable_planes=false", "lla.enable_spectrum=false")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}

NO_JOB = """
import sys
from taskshift.boundary import sentences
from taskshift.config.command import conf_folder, hydra_command

def job(config, overrides):
    pass

if __name__ == "__main__":
    sys.argv[0] = "train.py"
    with sentences():
        hydra_command(job, conf_folder())()
"""
"""A sweep whose runs do nothing: what is left is composing, checking and writing sweep.json."""


def seconds(words: list[str], folder: Path) -> tuple[float, float]:
    """How long a command takes in a folder by the clock, and on processors; it must end well, or as a sweep that did nothing."""
    start, used = time.monotonic(), _processor_seconds()
    done = subprocess.run(words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode and "runs are not done" not in done.stderr:
        raise SystemExit(done.stderr)
    return time.monotonic() - start, _processor_seconds() - used


def _processor_seconds() -> float:
    """What ended processes of ours have used."""
    times = os.times()
    return times.children_user + times.children_system


def preparation(num_runs: int, repeats: int) -> list[tuple[float, float]]:
    """Seconds from the command until the first of `num_runs` runs begins, or all of them could be queued."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "no_job.py"
        script.write_text(NO_JOB)
        grid = ("learner=backprop,l2", f"seed=range({num_runs // 2})")
        words = [sys.executable, str(script), "--multirun", *RUN, *grid]
        return [seconds(words, Path(folder)) for _ in range(repeats)]


def overhead(repeats: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Seconds of a run by train.py alone, and of the same run as a sweep of one on a local worker, taken in turn."""
    bare, swept = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            train = [sys.executable, str(ROOT / "train.py")]
            bare.append(seconds([*train, *RUN], Path(folder)))
            swept.append(seconds([*train, "--multirun", *RUN, "cluster=local"], Path(folder)))
    return bare, swept


def spread(taken: list[tuple[float, float]]) -> str:
    clock, processor = zip(*taken, strict=True)
    times = f"from {min(clock):.1f} to {max(clock):.1f}, {len(clock)} times"
    return f"{statistics.median(clock):.1f} s ({times}; {statistics.median(processor):.1f} s of processor time)"


def added(bare: list[tuple[float, float]], swept: list[tuple[float, float]]) -> str:
    clock, processor = (
        statistics.median(run[kind] for run in swept) - statistics.median(run[kind] for run in bare) for kind in (0, 1)
    )
    return f"{clock:.1f} s ({processor:.1f} s of processor time)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    print(f"{given.runs} runs ready to be queued: {spread(preparation(given.runs, given.repeats))}", flush=True)
    bare, swept = overhead(given.repeats)
    print(f"one run by train.py: {spread(bare)}")
    print(f"the same by the launcher, in a worker process: {spread(swept)}")
    print(f"added: {added(bare, swept)}")


if __name__ == "__main__":
    main()
