"""A run as its page shows it: from its record, its config and its saved grids alone, as far as it has come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from loss_landscape.page.content import Cell, MatrixView, RunView, Table
from taskshift.identity import flattened
from taskshift.intact import read_any_json
from taskshift.pictures.written_run import WrittenRun
from taskshift.report.cards import cards_of
from taskshift.report.charts import panels_after, panels_before
from taskshift.report.moments import GONE, analyses_of, moment_of, planes_of
from taskshift.report.trust import PlaneFacts
from taskshift.report.words import tasks_in_words
from taskshift.run_folder import RunFolder
from taskshift.summary import Row, columns_of, ended_tasks

MOST_TASKS_IN_FULL = 20
"""Of a longer run the page has the table's columns alone: metrics.jsonl has every number."""

NOT_SETTINGS = ("run_name", "output_root", "wandb", "recorder", "use_wandb")
"""Keys that change nothing of what is learnt or measured."""


def run_view(folder: Path, name: str) -> RunView:
    """The run in `folder` under this name; raises Fault where there is no record, or a file is damaged."""
    written = WrittenRun.read(folder)
    about = RunFolder(folder, arch="").known_run() or {}
    config, tasks, planes = about.get("config", {}), ended_tasks(written.rows), planes_of(folder)
    analyses, threshold = analyses_of(folder), threshold_name(config)
    moments = [
        moment_of(task, row, folder=analyses.get(task), planes=planes, threshold_name=threshold) for task, row in tasks.items()
    ]
    return RunView(
        name,
        facts_of(about, len(tasks)),
        cards=cards_of(tasks, {place: PlaneFacts.of(grid) for place, grid in planes.items() if place[1] in tasks}),
        moments=tuple(moments),
        over=panels_before(written),
        further=panels_after(written),
        matrices=tuple(_matrices(folder)),
        settings=settings_of(config),
        tables=tuple(_tables(written, tasks)),
    )


def facts_of(about: Mapping[str, Any], num_ended: int) -> str:
    """Tasks, shift, data, net, optimizer, seed and commit in a line; what is not known is left out."""
    config = about.get("config", {})
    wanted = config.get("num_tasks", num_ended)
    tasks = tasks_in_words(num_ended) if wanted == num_ended else f"{num_ended} of {tasks_in_words(wanted)}"
    data = str(config.get("data", {}).get("_target_", "")).rpartition(".")[2]
    facts = [tasks, config.get("task_shift_mode"), data, config.get("arch"), _optimizer(config)]
    facts += [f"seed {about['seed']}"] if "seed" in about else []
    commit = (about.get("git") or {}).get("commit")
    changed = " with changes" if commit and about["git"].get("changed") else ""
    return " · ".join(str(fact) for fact in [*facts, commit and f"commit {commit[:10]}{changed}"] if fact)


def settings_of(config: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Every key of a config with its value, in the config's order, but for those that change nothing."""
    flat = dict(flattened(config)).items()
    return tuple((key, str(value)) for key, value in flat if key.partition(".")[0] not in NOT_SETTINGS)


def threshold_name(config: Mapping[str, Any]) -> str:
    """How the optimizer's threshold reads, see `spectrum/stability_threshold`."""
    optimizer = _optimizer_block(config)
    if not optimizer.get("momentum"):
        return "2/η"
    return "(2 + 2β)/((1 + 2β)η)" if optimizer.get("nesterov") else "(2 + 2β)/η"


def _optimizer(config: Mapping[str, Any]) -> str:
    block = _optimizer_block(config)
    name = str(block.get("_target_", "")).rpartition(".")[2]
    return f"{name}, η = {block['lr']}" if name and "lr" in block else name


def _optimizer_block(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return (config.get("learner") or {}).get("optimizer") or {}


def _matrices(folder: Path) -> Iterator[MatrixView]:
    path = folder / "summary" / "barrier_matrix.json"
    if not path.exists():
        return
    content = read_any_json(path, GONE)
    labels = tuple(f"task {task}" for task in content["tasks"])
    yield MatrixView(
        "Barriers between the tasks' nets",
        labels,
        np.array(content["barrier"], dtype=float),
        "How far the loss rises on the straight line from the net at the end of one task (row) to that of another (column), on "
        "the column's data. 0: the two lie in one valley.",
        "Whether a bent way leads around, or another order of the units would bring the two closer.",
    )
    yield MatrixView(
        "Loss of each net on each task's data",
        labels,
        np.array(content["loss"], dtype=float),
        "A row is the net at the end of a task, a column the data of one: left of the diagonal are tasks that it learnt before.",
        "How soon what was forgotten would be learnt again.",
    )


def _tables(written: WrittenRun, tasks: Mapping[int, Row]) -> Iterator[Table]:
    """What is printed at a run's end, and, of few tasks, every number."""
    columns = [one for one in columns_of(written.quantities) if any(one.name in row for row in tasks.values())]
    rows = tuple((str(task), *(row.get(one.name) for one in columns)) for task, row in tasks.items())
    if rows:
        yield Table("At each task's end", ("task", *(one.key for one in columns)), rows, folded=False)
    if 0 < len(tasks) <= MOST_TASKS_IN_FULL:
        names = list(dict.fromkeys(name for row in tasks.values() for name in row if name not in ("task_idx",)))
        cells: list[tuple[Cell, ...]] = [(name, *(row.get(name) for row in tasks.values())) for name in names]
        note = "NaN and the infinities are values; a gap was not measured. docs/METRICS.md has each formula."
        yield Table("Every number at the tasks' ends", ("name", *(f"task {task}" for task in tasks)), tuple(cells), note)
