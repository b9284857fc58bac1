"""Whole commands of train.py, with all that they write, in processor seconds: rows of scripts/bench_train.py."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench_sweep import ROOT, seconds

QUIET = ("recorder=none", "use_wandb=false", "num_threads=1")
NOT_MEASURED = tuple(f"lla.enable_{name}=false" for name in ("rank", "units", "weights"))


@dataclass(frozen=True)
class Command:
    """What is given to train.py, and how long it may take."""

    words: tuple[str, ...]
    asked: str
    aimed: str = "–"
    repeats: int = 1


COMMANDS = {
    "slowly-changing regression, 100 runs × 1 M steps, no analysis": Command(
        (
            "--multirun", "experiment=slowly_changing_regression", "seed=range(100)", "num_tasks=100", "log_every=20000",
            "checkpoints.keep=1", "sweep_name=bench", *QUIET, *NOT_MEASURED,
        ),
        asked="≤ 60 s",
        aimed="30 s",
    ),
    "`make run`, on one thread": Command(
        ("task_shift_mode=permuted", "lla.enable_sam=true", "run_name=bench", *QUIET), asked="not slower", repeats=3
    ),
}  # fmt: skip


def cells_of_command(name: str, before: Path | None) -> list[str]:
    """A line of the table: work, ours, reference, times, asked, aimed; `before` holds the code that is the reference."""
    command = COMMANDS[name]
    sources = {"ours": ROOT} | ({"before": before.resolve()} if before is not None and command.asked == "not slower" else {})
    taken: dict[str, list[float]] = {who: [] for who in sources}
    for _ in range(command.repeats):
        for who, source in sources.items():
            with tempfile.TemporaryDirectory() as folder:
                _, used = seconds([sys.executable, str(source / "train.py"), *command.words], Path(folder))
            taken[who].append(used)
    ours = median(taken["ours"])
    told = [f"{ours:.1f} s", "–", "–"]
    if "before" in taken:
        told[1:] = [f"{median(taken['before']):.1f} s before", f"{median(taken['before']) / ours:.2f} ×"]
    return [name, *told, command.asked, command.aimed]
