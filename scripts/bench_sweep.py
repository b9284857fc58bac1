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


def overhead(repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of a run by train.py alone, and of sweeps of such runs, in one process and on a local worker; taken in turn."""
    train = [sys.executable, str(ROOT / "train.py"), *RUN]
    swept = [*train, "--multirun", "cluster=local", "hydra.launcher.workers=1"]
    commands = {
        "bare": train,
        "here": [*train, "--multirun", "seed=0"],
        "one": [*swept, "seed=0"],
        "three": [*swept, "seed=0,1,2"],
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, words in commands.items():
            with tempfile.TemporaryDirectory() as folder:
                taken[name].append(seconds(words, Path(folder)))
    return taken


def spread(taken: list[tuple[float, float]]) -> str:
    clock, processor = zip(*taken, strict=True)
    times = f"from {min(clock):.1f} to {max(clock):.1f}, {len(clock)} times"
    return f"{statistics.median(clock):.1f} s ({times}; {statistics.median(processor):.1f} s of processor time)"


def medians(taken: list[tuple[float, float]]) -> tuple[float, float]:
    clock, processor = zip(*taken, strict=True)
    return statistics.median(clock), statistics.median(processor)


def added(taken: dict[str, list[tuple[float, float]]]) -> dict[str, str]:
    """What a sweep of one takes beyond a run by train.py, in one process or on a worker, and what every further run does."""
    bare, here, one, three = (medians(taken[name]) for name in ("bare", "here", "one", "three"))
    found = {
        "to a run in the launcher's own process": [sweep - alone for sweep, alone in zip(here, bare, strict=True)],
        "to the first run on a worker": [sweep - alone for sweep, alone in zip(one, bare, strict=True)],
        "to each further run on a worker": [
            (all_three - sweep) / 2 - alone for all_three, sweep, alone in zip(three, one, bare, strict=True)
        ],
    }
    return {what: f"{clock:.1f} s ({processor:.1f} s of processor time)" for what, (clock, processor) in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    print(f"{given.runs} runs ready to be queued: {spread(preparation(given.runs, given.repeats))}", flush=True)
    taken = overhead(given.repeats)
    print(f"one run by train.py: {spread(taken['bare'])}")
    print(f"a sweep of one, in the same process: {spread(taken['here'])}")
    print(f"a sweep of one, in a worker process: {spread(taken['one'])}")
    print(f"a sweep of three, one after the other: {spread(taken['three'])}")
    for what, seconds_added in added(taken).items():
        print(f"added by the launcher {what}: {seconds_added}")


if __name__ == "__main__":
    main()
