"""What a run costs besides its arithmetic.

    python scripts/bench_run.py share     time of a task inside forward, backward and optimizer, for two nets
    python scripts/bench_run.py growth    memory and time a task over 300 tasks, with and without planes
    python scripts/bench_run.py start     seconds from the command to the first training step

Run folders go to a temporary folder that is removed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from taskshift import run as running
from taskshift import trainer
from taskshift.config.command import compose
from taskshift.training import Training

QUIET = ("recorder=none", "run_name=bench", "data=synthetic_images", "data.side=28")
NO_ANALYSIS = [f"lla.enable_{name}=false" for name in ("planes", "spectrum", "sam", "rank", "units", "weights", "plasticity")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["share", "growth", "start"])
    parser.add_argument("--tasks", type=int, default=300, help="of growth")
    parser.add_argument("--repeats", type=int, default=5, help="of share and start")
    options = parser.parse_args()
    train_script = Path("train.py").resolve()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        if options.what == "share":
            share(options.repeats)
        elif options.what == "growth":
            growth(options.tasks)
        else:
            start(train_script, options.repeats)


# -- the share of arithmetic ------------------------------------------------------------------------------------


def share(repeats: int) -> None:
    """Print the share of train()'s wall time spent in Training.learn and, apart, in the forward passes of the test split."""
    for net in ("convnet", "mlp"):
        shares, tests = [], []
        for repeat in range(repeats):
            config = compose(
                *QUIET, *NO_ANALYSIS, f"net={net}", "batch_size=64", "data.train_size=3000", "num_tasks=1", "epochs=3"
            )
            with _watched() as seconds, contextlib.redirect_stdout(None):
                running.run(config | {"run_name": f"{net}{repeat}"})
            shares.append(seconds["learn"] / seconds["train"])
            tests.append(seconds["test"] / seconds["train"])
        print(
            f"{net:8s} forward, backward and optimizer: median {statistics.median(shares):.1%} of a task's training "
            f"({min(shares):.1%} to {max(shares):.1%}); test split: {statistics.median(tests):.1%}"
        )


@contextlib.contextmanager
def _watched() -> Iterator[dict[str, float]]:
    """Seconds inside `train`, inside `Training.learn`, and inside the test split's evaluation."""
    seconds, inside = {"train": 0.0, "learn": 0.0, "test": 0.0}, []
    places = {"train": (running, "train"), "learn": (Training, "learn"), "test": (trainer, "averages")}
    originals = {name: getattr(owner, attribute) for name, (owner, attribute) in places.items()}

    def timed(name):
        def wrapper(*arguments, **options):
            inside.append(name)
            begin = time.perf_counter()
            result = originals[name](*arguments, **options)
            if inside[0] == "train":  # not the estimate's steps before it
                seconds[name] += time.perf_counter() - begin
            inside.pop()
            return result

        return wrapper

    for name, (owner, attribute) in places.items():
        setattr(owner, attribute, timed(name))
    try:
        yield seconds
    finally:
        for name, (owner, attribute) in places.items():
            setattr(owner, attribute, originals[name])


# -- growth over many tasks -------------------------------------------------------------------------------------


def growth(num_tasks: int) -> None:
    """Print resident memory after task 20 and at the end, and the time of a task in the first and last fifty."""
    for label, options in (("without planes", NO_ANALYSIS), ("with planes", [*NO_ANALYSIS[1:], "lla.planes.grid_resolution=11"])):
        memory, seconds = [], []
        with _each_task(memory, seconds):
            config = compose(
                *QUIET, *options, f"num_tasks={num_tasks}", "epochs=1", "data.side=8", "lla.training.max_checkpoints=4"
            )
            running.run(config | {"run_name": label.replace(" ", "_")})
        grown = (memory[-1] - memory[20]) / (len(memory) - 21)
        first, last = statistics.median(seconds[1:51]), statistics.median(seconds[-50:])
        print(
            f"{label:15s} {grown / 1e3:+.1f} kB a task after task 20; a task takes {first * 1e3:.1f} ms of processor time "
            f"in the first fifty and {last * 1e3:.1f} ms in the last fifty ({last / first - 1:+.1%})"
        )


@contextlib.contextmanager
def _each_task(memory: list[int], seconds: list[float]) -> Iterator[None]:
    """Note the resident memory and the processor's time after each task, and leave the summary's pictures out."""
    original, summarise, last = running.measure, running.summarise, time.process_time()

    def watched(job, task, phase):
        nonlocal last
        original(job, task, phase)
        if phase == "end":
            now = time.process_time()
            seconds.append(now - last)
            memory.append(_resident_bytes())
            last = now

    running.measure, running.summarise = watched, lambda job: None
    try:
        yield
    finally:
        running.measure, running.summarise = original, summarise


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# -- the first step ---------------------------------------------------------------------------------------------


def start(train_script: Path, repeats: int) -> None:
    """Print the seconds from the command to the end of the first training step, in processes of their own."""
    program = (
        "import runpy, sys, time\n"
        "import taskshift.training as module\n"
        "learn = module.Training.learn\n"
        "def first(self, *a):\n"
        "    step = learn(self, *a)\n"
        "    print(time.time(), flush=True)\n"
        "    sys.stdout.flush(); import os; os._exit(0)\n"
        "import taskshift.estimate as estimate\n"
        "import taskshift.run as run\n"
        "estimating = estimate.before\n"
        "def before(*a):\n"
        "    said = estimating(*a); module.Training.learn = first; return said\n"
        "run.estimate.before = before\n"
        f"sys.argv = [{str(train_script)!r}, 'run_name=start']\n"
        f"runpy.run_path({str(train_script)!r}, run_name='__main__')\n"
    )
    taken = []
    for _ in range(repeats):
        begin = time.time()
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        taken.append(float(done.stdout.split()[-1]) - begin)
    print(f"first training step after {statistics.median(taken):.2f} s ({min(taken):.2f} to {max(taken):.2f})")


if __name__ == "__main__":
    main()
