"""A run folder as a run leaves it, made of invented numbers that are easy to recognise."""

import json
import math
from pathlib import Path

import numpy as np

from loss_landscape.results.grid import Grid
from taskshift.evaluators.plasticity import Plasticity
from taskshift.evaluators.rank import Rank
from taskshift.evaluators.sam import Sam
from taskshift.evaluators.spectrum import Spectrum
from taskshift.evaluators.units import Units
from taskshift.evaluators.weights import Weights
from taskshift.quantities import Quantities
from taskshift.run_folder import RunFolder
from taskshift.run_quantities import COST, TRAINING

EPOCHS = 3

EVALUATORS = {"spectrum": Spectrum, "sam": Sam, "rank": Rank, "units": Units, "weights": Weights, "plasticity": Plasticity}
OF_EVALUATORS = [quantity.below(name) for name, evaluator in EVALUATORS.items() for quantity in evaluator.quantities]
DECLARED = Quantities([*TRAINING, *COST, *OF_EVALUATORS])
"""What such a run's numbers are."""


def write_run(folder: Path, *, num_tasks: int = 3, drop: str = "", **changed: float) -> Path:
    """A run of `num_tasks` tasks; names that begin with `drop` are left out; `changed` replaces numbers of task 1's last row."""
    rows = []
    for task in range(num_tasks):
        rows += [epoch_row(task, epoch) for epoch in range(EPOCHS)]
        rows.append(end_row(task) | (changed if task == 1 else {}))
    kept = [{name: value for name, value in row.items() if not drop or not name.startswith(drop)} for row in rows]
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    (folder / "config.yaml").write_text("task_shift_mode: permuted\narch: mlp\n")
    RunFolder(folder, "mlp").write_quantities(DECLARED)
    return folder


def epoch_row(task: int, epoch: int) -> dict[str, float]:
    loss = 1.0 / (1 + epoch) + task
    place = {"global_epoch": task * EPOCHS + epoch, "task_idx": task}
    return place | {"epoch_loss": loss, "epoch_accuracy": 0.5, "test_loss": loss + 0.5, "test_accuracy": 0.4}


def end_row(task: int) -> dict[str, float]:
    row = {"global_epoch": (task + 1) * EPOCHS - 1, "task_idx": task}
    row |= {"task_last_epoch_loss": 0.1 + task, "task_last_epoch_accuracy": 0.9, "task/seconds": 12.0, "task/memory_mb": 512.0}
    row |= {"spectrum/top_eigenvalue_1": 30.0, "spectrum/top_eigenvalue_2": 20.0, "spectrum/bottom_eigenvalue_1": -40.0}
    row |= {"spectrum/top_residual_1": 1e-3, "spectrum/top_residual_2": 2e-3, "spectrum/bottom_residual_1": 0.0}
    row |= {"spectrum/trace": 800.0 + task, "spectrum/trace_standard_error": 25.0}
    row |= {"sam/sharpness": 0.25, "rank/approximate_rank": 30.0, "rank/layers.1/approximate_rank": 40.0}
    row |= {"units/dead_fraction": 0.1, "units/dormant_fraction": 0.2, "units/layers.1/dead_fraction": 0.1}
    row |= {"weights/mean_abs": 0.03, "weights/layers.0/mean_abs": 0.04}
    return row | {f"plasticity/{name}": 0.8 for name in ("test_accuracy", "first_epoch_accuracy", "area_under_loss", "test_loss")}


def write_plane(
    folder: Path, task: int, place: str = "planes/random", scale: float = 1.0, reach: float = 0.25, **meta: object
) -> Grid:
    """A plane of task `task`: scale · (1 + α + 2β), on 5 × 5 cells up to `reach`."""
    axis = np.linspace(-reach, reach, 5)
    losses = scale * (1.0 + axis[:, None] + 2.0 * axis)
    facts = {"kind": "random", "direction_norms": [2.0, 3.0], "origin_norm": 4.0, "baseline_loss": scale, "noise_floor": None}
    grid = Grid(losses, (axis, axis), facts | {"coordinates": [axis.tolist()] * 2} | meta)
    grid.save(folder / f"task_{task:04d}_mlp" / place)
    return grid


NOT_FINITE = {"spectrum/trace": math.inf, "spectrum/top_eigenvalue_1": math.nan}
