"""A sweep's folder as the launcher and its runs leave it, made of invented numbers that are easy to recognise."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from summary_runs import DECLARED, EPOCHS

from taskshift.run_folder import RunFolder

Values = Callable[[Mapping[str, str], int], float]
"""(a run's overrides, task) → its accuracy at the task's end."""


def write_sweep(
    folder: Path,
    grid: Mapping[str, Sequence[str]],
    accuracy: Values = lambda overrides, task: 0.5,
    *,
    num_tasks: int = 3,
    skip: Sequence[str] = (),
) -> Path:
    """A run for each combination of `grid` (swept key → values, as text); those labelled in `skip` have not begun."""
    runs = {}
    for number, values in enumerate(itertools.product(*grid.values())):
        overrides = dict(zip(grid, values, strict=True))
        label = " ".join(f"{key}={value}" for key, value in overrides.items())
        key = f"{number:08x}"
        runs[key] = {"overrides": overrides, "label": label, "job": None, "cluster": None, "submitted": None, "waiting": False}
        if label not in skip:
            write_rows(folder / key, [row for task in range(num_tasks) for row in task_rows(task, accuracy(overrides, task))])
            write_run_json(folder / key, seed=int(overrides.get("seed", 7)), num_tasks=num_tasks)
            (folder / key / "DONE").write_text(json.dumps({"num_tasks": num_tasks, "ended": "2030-01-01T00:00:00+00:00"}))
    write_sweep_json(folder, list(grid), runs)
    return folder


def write_sweep_json(folder: Path, swept: Sequence[str], runs: Mapping[str, Mapping]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    about = {"name": folder.name, "fixed": [], "swept": sorted(swept), "command": "python train.py --multirun …"}
    about |= {"source": {"hash": "0" * 8, "git": None}, "runs": runs}
    (folder / "sweep.json").write_text(json.dumps(about))


def write_run_json(folder: Path, *, seed: int, num_tasks: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"seed": seed, "num_tasks": num_tasks, "epochs": EPOCHS}
    (folder / "run.json").write_text(json.dumps({"run_name": folder.name, "seed": seed, "config": config}))
    RunFolder(folder, "mlp").write_quantities(DECLARED)


def write_rows(folder: Path, rows: Sequence[Mapping[str, float]], torn: str = "") -> None:
    """A record of these rows, and `torn`, the beginning of one that is being written."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + torn)


def task_rows(task: int, accuracy: float) -> list[dict[str, float]]:
    """What a task's epochs and its end log."""
    rows = [
        {"global_epoch": task * EPOCHS + epoch, "task_idx": task, "epoch_loss": 1.0 / (1 + epoch), "epoch_accuracy": accuracy}
        for epoch in range(EPOCHS)
    ]
    end = {"global_epoch": (task + 1) * EPOCHS - 1, "task_idx": task, "task_last_epoch_accuracy": accuracy, "task/seconds": 10.0}
    return [*rows, end | {"weights/norm": 5.0, "weights/layers.0/norm": 3.0}]
