"""A folder in which a run's kept nets are measured again: its identity, and the analysis of each net."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from taskshift import checkpoint, trajectory
from taskshift.analysis import Analysis
from taskshift.config.build import Parts
from taskshift.config.saved import read_config
from taskshift.config.words import shown
from taskshift.evaluators.evaluator import MeasuredPhase
from taskshift.faults import Fault
from taskshift.identity import identity
from taskshift.intact import read_json, write_json
from taskshift.job import warn_of_another_machine
from taskshift.origin import describe_run
from taskshift.run_folder import RunFolder, read_rows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """Which nets of a run are measured, with which settings, and where to."""

    run: RunFolder
    folder: RunFolder
    config: Mapping[str, Any]
    tasks: tuple[int, ...]
    phase: MeasuredPhase
    changes: tuple[str, ...] = ()  # the words about lla, sorted
    num_shards: int = 1
    workers: int = 1  # processes that shards are computed in


def take_identity(order: Order, parts: Parts) -> None:
    """Say in the folder what is measured with what, or refuse one that says otherwise; set the number of threads.

    A measurement takes as many threads as its run did, as the last bits depend on it.
    """
    about, source = order.folder.path / "measure.json", order.run.known_run()
    if source is None:
        raise Fault(f"{order.run.path} is no run's folder: there is no run.json in it")
    known = read_json(about, "delete its folder to measure again, or give another name=…") if about.exists() else None
    if known is not None:
        _refuse_other_settings(order)
    began = known or source
    threads = parts.top.num_threads or began["num_threads"]
    warn_of_another_machine(began, parts.device, threads)
    torch.set_num_threads(threads)
    if known is None:
        order.folder.write_configs(order.config)
        order.folder.write_quantities(parts.quantities)
        made = describe_run(order.config, "", parts.device)
        of = {name: made[name] for name in ("config_hash", "device", "cpu", "git", "versions")}
        run = {"run_name": source["run_name"], "config_hash": source["config_hash"]}
        content = {"changes": order.changes, "run": run, "num_threads": threads, **of}
        write_json(about, content)


def order_of(folder: Path, task: int, phase: MeasuredPhase) -> Order:
    """What is measured in a folder that exists, of one net."""
    config = read_config(folder)
    return Order(RunFolder(folder.parent.parent, config["arch"]), RunFolder(folder, config["arch"]), config, (task,), phase)


def analysis_of(order: Order, parts: Parts, task: int) -> Analysis:
    """The evaluators of `parts` on a kept net, which the training then holds. Lanczos starts cold."""
    end = order.phase == "end"
    rows = [row for row in read_rows(order.run.path) if row["task_idx"] == task and "epoch_loss" in row]
    return Analysis(
        parts,
        parts.stream[task],
        order.phase,
        order.folder.analysis(task, order.phase),
        eigenpairs_file=order.folder.eigenpairs(task, order.phase),
        initial=order.run.initial,
        trajectory=trajectory.points(order.run, task) if end else (),
        rows=tuple(rows) if end else (),
        earlier=order.run.nets_before(task),
        optimizer_known=_load(order, parts, task),
        tick=lambda name: log.info("task %d: %s", task, name),
    )


def net_file(run: RunFolder, task: int, phase: MeasuredPhase) -> Path:
    """The net at the start or end of a task: at its start it is as the last task left it."""
    if phase == "end":
        return run.task_checkpoint(task)
    return run.initial if task == 0 else run.task_checkpoint(task - 1)


def _load(order: Order, parts: Parts, task: int) -> bool:
    """Put a kept net into the training; return whether the optimizer is as it was then.

    Where the run still stands at this very point all of the training is known, else the net alone; a learning rate that no
    scheduler changes is known all the same. Tasks come in their order: no other's optimizer is left when a net comes alone.
    """
    if order.run.latest.exists():
        latest = checkpoint.load(order.run.latest, parts.device)
        if (latest["progress"]["task"], latest["progress"]["phase"]) in _points(task, order.phase):
            parts.training.load_state_dict(latest["training"])
            return True
    path = net_file(order.run, task, order.phase)
    state = checkpoint.load(path, parts.device)
    parts.training.load_net(state if path == order.run.initial else state["net"])
    return parts.training.schedule.scheduler is None


def _points(task: int, phase: MeasuredPhase) -> set[tuple[int, str]]:
    """Where a run stands while its training is as it is at this phase of this task."""
    return {(task, "end"), (task + 1, "start")} if phase == "end" else {(task, "start"), (task - 1, "end")}


def _refuse_other_settings(order: Order) -> None:
    before, now = identity(read_config(order.folder.path)), identity(order.config)
    sentences = [
        f"{key}: measured there with {shown(before.get(key))}, the command says {shown(now.get(key))}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if sentences:
        raise Fault(f"{order.folder.path} holds a measurement with other settings; give another name=…, or its own:", *sentences)
