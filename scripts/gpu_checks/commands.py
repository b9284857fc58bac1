"""Commands as a user gives them: the tests, a run that is killed and goes on, the pipeline."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from gpu_checks.rows import FAILED, FALLS_SHORT, HOLDS, LEFT_OUT, Place, Row
from taskshift.compare import differences

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ROOT / "experiments" / "Hessian_and_landscape_plot_with_plasticity_loss" / "lla_pipeline.py"
FOLDERS = ("library", "oracles", "framework")
DEFAULT_RUN = ("task_shift_mode=permuted", "lla.enable_sam=true", "use_wandb=false", "checkpoints.every_seconds=1")


def tests_on_the_device(place: Place) -> Iterator[Row]:
    """The fast tests that run on every kind of device there is."""
    folders = ["tests/library/spectra/test_lanczos.py"] if place.quick else [f"tests/{of}" for of in FOLDERS]
    words = ["-m", "pytest", "-q", "-m", "not slow and not exhaustive", "-k", place.device.type, *folders]
    status, said, seconds = python_ran(words, ROOT, limit=min(150.0, place.budget.left() - 30))
    counted = re.search(r"\d+ (passed|failed).*", said)
    verdict = HOLDS if status == 0 else LEFT_OUT if status is None else FAILED
    yield Row(f"tests on {place.device}", counted[0].strip("= ") if counted else last_line(said), f"{seconds:.0f} s", verdict)


def a_killed_run_goes_on(place: Place) -> Iterator[Row]:
    """A default run on the device, undisturbed and killed twice: the same bits."""
    sizes = ("num_tasks=2", "epochs=2") if place.quick else ("num_tasks=3", "epochs=5")
    with TemporaryDirectory() as folder:
        words = [str(ROOT / "train.py"), *DEFAULT_RUN, *sizes, f"device={place.device}"]
        status, said, seconds = python_ran([*words, "run_name=whole"], Path(folder), limit=place.budget.left() - 30)
        if status != 0:
            yield Row("default run", last_line(said), verdict=LEFT_OUT if status is None else FAILED)
            return
        yield Row("default run", f"{seconds:.1f} s, {sizes[0]}, {sizes[1]}")
        for share in (0.5, 0.8):
            killed([*words, "run_name=killed"], Path(folder), after=share * seconds)
        status, said, _ = python_ran([*words, "run_name=killed"], Path(folder), limit=place.budget.left() - 20)
        if status is None:
            yield Row("killed twice and resumed", said, verdict=LEFT_OUT)
            return
        runs = {path.name: path for path in Path(folder).glob("outputs/*/*/*") if path.is_dir()}
        found = [last_line(said)] if status != 0 else differences(runs["whole"], runs["killed"])
        yield Row(
            "killed twice and resumed", "the same bits" if not found else f"differs: {found[0]}", "", FAILED if found else HOLDS
        )


def the_pipeline(place: Place) -> Iterator[Row]:
    """The pipeline for one net, planes and spectrum and SAM, at the shapes of CIFAR-10 on made-up images."""
    shape = ("data=synthetic_images", "data.channels=3", "data.side=32", f"lla.runtime.device={place.device}")
    sizes = ("lla.planes.grid_resolution=5", "lla.sam.grid_resolution=5") if place.quick else ()
    with TemporaryDirectory() as folder:
        words = [str(PIPELINE), "--task", "all", "--outdir", folder, *shape, *sizes]
        status, said, seconds = python_ran(words, Path(folder), limit=place.budget.left() - 5)
    verdict = HOLDS if status == 0 else FALLS_SHORT if status is None else FAILED
    yield Row("pipeline, 3×32×32", f"{seconds:.1f} s" if status == 0 else last_line(said), "", verdict)


def python_ran(words: Sequence[str], folder: Path, limit: float) -> tuple[int | None, str, float]:
    """The status of `python words…`, None where it took too long; what it said; its seconds."""
    begun = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=max(limit, 1.0),
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        )
    except subprocess.TimeoutExpired:
        return None, f"stopped after {limit:.0f} s", time.perf_counter() - begun
    return done.returncode, done.stdout + done.stderr, time.perf_counter() - begun


def killed(words: Sequence[str], folder: Path, after: float) -> None:
    """Begin `python words…` and kill it after so many seconds, unless it has ended before."""
    with subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    ) as process:
        try:
            process.wait(timeout=after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)


def last_line(said: str) -> str:
    """The last line that says something."""
    return next((line for line in reversed(said.splitlines()) if line.strip()), "it said nothing")[:150]
