"""What it takes to train many seeds of two learners in one command: in stacks, and one run after the other.

    python scripts/bench_stacks.py [--seeds 100] [--repeats 1] [key=value …]

Both commands in turns, each in an empty folder, on one thread; seconds by the clock and on processors, with start and compiling.
Every run must be done, and `taskshift collect`, `plot` and `compare` must read both sweeps alike.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import duckdb
from bench_sweep import ENVIRONMENT, ROOT, seconds

SWEEP = ("data=digits", "learner=backprop,cbp", "use_wandb=false", "recorder=none", "num_threads=1", "checkpoints.keep=1")
NOT_MEASURED = tuple(f"lla.enable_{name}=false" for name in ("planes", "spectrum", "coupling"))
METRIC = "task_last_epoch_accuracy"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("words", nargs="*", help="further words of both commands")
    options = parser.parse_args()
    taken: dict[str, list[tuple[float, float]]] = {"auto": [], "false": []}
    for _ in range(options.repeats):
        for stack, of in taken.items():
            with tempfile.TemporaryDirectory() as folder:
                of.append(sweep(stack, options.seeds, options.words, Path(folder)))
    for stack, name in (("auto", "in stacks"), ("false", "one by one")):
        clock, used = (statistics.median(column) for column in zip(*taken[stack], strict=True))
        print(f"{name:12} {clock:9.1f} s by the clock, {used:9.1f} s on processors: {used / (2 * options.seeds):.2f} a run")
    ratio = statistics.median(one[1] for one in taken["false"]) / statistics.median(one[1] for one in taken["auto"])
    print(f"stacks take {ratio:.1f} times less")


def sweep(stack: str, seeds: int, words: Sequence[str], folder: Path) -> tuple[float, float]:
    """How long a sweep takes; what it wrote is read as a user reads it."""
    grid = (f"seed=range({seeds})", "sweep_name=mine", f"hydra.launcher.stack={stack}")
    command = [sys.executable, str(ROOT / "train.py"), "--multirun", *SWEEP, *NOT_MEASURED, *grid, *words]
    taken = seconds(command, folder)
    [place] = folder.glob("outputs/*/sweeps/mine")
    done = len(list(place.glob("*/DONE")))
    if done != 2 * seeds:
        raise SystemExit(f"{done} of {2 * seeds} runs are done")
    taskshift(folder, "collect", place, "-o", folder / "all.parquet")
    taskshift(folder, "plot", place, "--y", METRIC, "--group", "learner")
    taskshift(folder, "compare", place, "--between", "learner=backprop,cbp", "--y", METRIC)
    told = f"SELECT learner, count(*), avg(value), stddev(value) FROM '{folder}/all.parquet' WHERE metric = '{METRIC}' GROUP BY 1"
    for learner, count, mean, deviation in sorted(duckdb.sql(told).fetchall()):
        print(f"stack={stack:6} {learner:9} {count} task ends, {METRIC} {mean:.4f} ± {deviation:.4f}", flush=True)
    return taken


def taskshift(folder: Path, *words: str | os.PathLike) -> None:
    subprocess.run(
        [sys.executable, "-m", "taskshift.cli", *map(str, words)],
        cwd=folder, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


if __name__ == "__main__":
    main()
