"""Do rank and plasticity go together over a run's tasks? From its record alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taskshift.intact import write_text
from taskshift.metrics.coupling import Coupling, Resampling, coupling
from taskshift.metrics.rank_drops import relative_drops
from taskshift.randomness import generator
from taskshift.summary import Row, by_task, read_rows

OUTCOMES = ("task_last_epoch_loss", "task_last_epoch_accuracy")
RANK = re.compile(r"rank/(?:.+/)?[a-z0-9]+_rank")
CAUTION = "no p-values: tasks one after the other on one net are not independent; the intervals take them so, and are too narrow"


def write_coupling(folder: Path) -> Path:
    """Write summary/coupling.json anew; return where."""
    path = Path(folder) / "summary" / "coupling.json"
    write_text(path, json.dumps(coupling_table(read_rows(folder)), indent=2) + "\n")
    return path


def coupling_table(rows: Iterable[Row]) -> dict[str, Any]:
    """Every rank of the record against the last loss and accuracy of its task, over the tasks that have both.

    `levels` compares the values themselves, `drops` the relative drop of rank since the task before with the change of the loss
    or accuracy since then. A name → a name → what `Coupling` holds; `why_none` where the record holds no rank.
    """
    tasks = dict(sorted(by_task(rows).items()))
    names = sorted({name for row in tasks.values() for name in row if RANK.fullmatch(name)})
    if not names:
        return {"why_none": "the record holds no rank: lla.enable_rank=true measures it"}
    found: dict[str, Any] = {"caution": CAUTION, **asdict(Resampling())}
    for kind in ("drops", "levels"):
        found[kind] = {rank: {outcome: asdict(over_tasks(tasks, kind, rank, outcome)) for outcome in OUTCOMES} for rank in names}
    return found


def over_tasks(tasks: Mapping[int, Row], kind: str, rank: str, outcome: str) -> Coupling:
    """How what the record calls `rank` and `outcome` go together over the tasks; `kind` is `drops` or `levels`."""
    of_rank, of_outcome, _ = points(tasks, kind, rank, outcome)
    words = ("the drop of rank", "the change of the outcome") if kind == "drops" else ("the rank", "the outcome")
    return coupling(of_rank, of_outcome, generator("coupling over tasks", kind), names=words)


def points(tasks: Mapping[int, Row], kind: str, rank: str, outcome: str) -> tuple[Tensor, Tensor, list[int]]:
    """The two series [n], float64, and the tasks [n] that they are of: those that have both, of `drops` all but the first."""
    both = {task: row for task, row in tasks.items() if rank in row and outcome in row}
    ranks = torch.tensor([row[rank] for row in both.values()], dtype=torch.float64)
    outcomes = torch.tensor([row[outcome] for row in both.values()], dtype=torch.float64)
    if kind == "levels":
        return ranks, outcomes, list(both)
    return relative_drops(ranks), outcomes.diff(), list(both)[1:]
