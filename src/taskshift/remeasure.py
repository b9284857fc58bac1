"""Evaluators on the nets that a run kept, with other settings, into a folder of their own inside the run's."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra_plugins.taskshift_sweeps.launcher import require_slurm, submitit_parameters
from taskshift import shard_jobs, shards
from taskshift.config.build import Parts, build_parts
from taskshift.config.check import check_quick
from taskshift.config.launcher import launcher_options
from taskshift.config.saved import Word, changed, read_config, read_words
from taskshift.config.words import no_such_key, shown
from taskshift.evaluators.evaluator import MeasuredPhase
from taskshift.faults import Fault
from taskshift.intact import write_text
from taskshift.measured import Order, analysis_of, net_file, take_identity
from taskshift.origin import config_hash
from taskshift.run_folder import RunFolder, disk_faults, held, read_rows

log = logging.getLogger(__name__)

OWN = ("task", "phase", "name", "lla.shards")
"""What is said of the measurement itself."""

FREE = ("device", "num_threads", "data.root")
"""Keys of the run's config that may be others now; all of `lla` may be as well."""

ELSEWHERE = {
    "lla.at": "phase=start or phase=end says when in a task",
    "lla.every": "task=… says which tasks",
    "lla.on_error": "the first evaluator that fails ends it, and the same command goes on from there",
    "lla.training": "the run has kept what snapshots it has",
}
"""Keys of `lla` that a measurement of kept nets does not read, and what holds instead."""


def remeasure(folder: Path, overrides: Sequence[str]) -> Path:
    """Run evaluators on a run's kept nets and return the folder of what they found, `<folder>/measured/<name>`.

    `overrides` are words as on the command line: `lla.…`, `device=`, `num_threads=` and `data.root=` change the run's saved
    config; `task=` is a number or a list (all whose nets were kept, unless given), `phase=` start or end (end), `name=` the name
    of the folder (a hash of the settings). `lla.shards=` splits planes and spectral densities into so many parts, with the same
    bits; as in a sweep `cluster=local` computes some of them at a time, `cluster=slurm` in an array of jobs, with `resources=`
    and `hydra.launcher.…`. Nothing of the run is changed. What is finished in that folder is not run again; one with other
    settings is refused. Raises Fault for what a user can mend.
    """
    launching = [word for word in overrides if _is_of_the_launcher(word)]
    launcher = launcher_options(launching)
    order = read_order(Path(folder), [word for word in overrides if word not in launching])
    if launcher.cluster == "slurm":
        require_slurm()
        parameters = submitit_parameters(launcher)
        jobs = shard_jobs.Slurm(order.folder.path / "jobs", parameters, launcher.max_requeues, launcher.detach)
        shard_jobs.carry_out(order, jobs, carry_out)
    else:
        carry_out(replace(order, workers=launcher.workers if launcher.cluster == "local" else 1))
    return order.folder.path


def _is_of_the_launcher(word: str) -> bool:
    return word.partition("=")[0].lstrip("+") in ("cluster", "resources") or word.lstrip("+").startswith("hydra.launcher.")


def carry_out(order: Order) -> None:
    """Measure what is missing of an order, here."""
    parts = build_parts(order.config)
    with disk_faults(order.folder.path), held(order.folder.path, "give another name=…"):
        take_identity(order, parts)
        for task in order.tasks:
            log.info("measuring the %s of task %d into %s", order.phase, task, order.folder.path)
            _measure(order, parts, task)


def read_order(folder: Path, overrides: Sequence[str]) -> Order:
    """What the words ask for, checked as far as that goes without building anything."""
    saved = read_config(folder)
    words = read_words(overrides)
    own = {word.key: word.value for word in words if word.key in OWN}
    others = [word for word in words if word.key not in OWN]
    if faults := [sentence for word in others if (sentence := _refusal(word, saved))]:
        raise Fault(*faults)
    config = changed(saved, others) | {"recorder": {}, "use_wandb": False}
    check_quick(config)
    run, phase = RunFolder(folder, config["arch"]), _phase(own.get("phase", "end"))
    num_shards = _count("lla.shards", own.get("lla.shards", 1))
    if num_shards > 1 and config["lla"]["tolerance"] is not None:
        raise Fault(
            f"lla.shards={num_shards}: planes with an lla.tolerance go level by level, each needs the last; give null for it"
        )
    return Order(
        run,
        RunFolder(folder / "measured" / _name(own.get("name", config_hash(config))), config["arch"]),
        config,
        _tasks(own.get("task"), phase, run, config["num_tasks"]),
        phase,
        tuple(sorted(word.text for word in others if word.key.startswith("lla."))),
        num_shards,
    )


def _measure(order: Order, parts: Parts, task: int) -> None:
    analysis = analysis_of(order, parts, task)

    def guard(name: str, evaluate: Callable[[], None]) -> None:
        advice = f"what is finished is kept; to leave it out: lla.enable_{name}=false and a name=… of its own"
        with analysis.naming(name, advice):
            evaluate()

    if order.num_shards > 1:
        shards.complete(order, analysis)
    found, epochs = analysis.run(guard), parts.top.epochs
    if order.phase == "start":
        row = {"global_epoch": task * epochs, "task_idx": task, **{f"start/{name}": value for name, value in found.items()}}
    else:
        row = {"global_epoch": (task + 1) * epochs - 1, "task_idx": task, **found}
    _put_row(order.folder, row)


def _put_row(folder: RunFolder, row: Mapping[str, float]) -> None:
    """Put a row into the record, in the place of the one that said the same; in the order of the tasks."""
    kept = {_place(old): old for old in read_rows(folder.path)} | {_place(row): row}
    write_text(folder.metrics, "".join(json.dumps(kept[place]) + "\n" for place in sorted(kept)))


def _place(row: Mapping[str, float]) -> tuple[float, bool]:
    return row["task_idx"], not any(name.startswith("start/") for name in row)


def _refusal(word: Word, saved: Mapping[str, Any]) -> str | None:
    """Why a word cannot be taken, or None."""
    if word.key == "lla":
        return (
            f"{word.text}: which evaluators there are is settled in the run's config; lla.enable_<name>=true or false switches "
            "one, and '+lla.<name>={_target_: …}' adds one"
        )
    for key, instead in ELSEWHERE.items():
        if word.key == key or word.key.startswith(f"{key}."):
            return f"{word.text}: a measurement of kept nets does not read it; {instead}"
    if word.key.startswith("lla.") or word.key in FREE:
        return None
    if word.key.split(".")[0] in saved:
        return f"{word.text}: this is settled, the run is measured as it is; lla.…, {', '.join((*FREE, *OWN))} may be given"
    return no_such_key("", word.key, {*OWN, *FREE})


def _phase(value: Any) -> MeasuredPhase:
    if value not in ("start", "end"):
        raise Fault(f"phase={shown(value)}: expected start or end")
    return value


def _count(key: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise Fault(f"{key}={shown(value)}: expected a whole number, at least 1")
    return value


def _name(value: Any) -> str:
    text = str(value)
    if not text.strip() or text in (".", "..") or "/" in text or len(text) > 200:
        raise Fault(f"name={shown(value)}: expected one folder name: not empty, no slash, at most 200 characters")
    return text


def _tasks(value: Any, phase: MeasuredPhase, run: RunFolder, num_tasks: int) -> tuple[int, ...]:
    kept = [task for task in range(num_tasks) if net_file(run, task, phase).exists()]
    if not kept:
        raise Fault(f"{run.path} has kept no net yet: one is saved at each task's end, as checkpoints/task_XXXX.pt")
    wanted = kept if value is None else value if isinstance(value, list) else [value]
    if not wanted or any(type(task) is not int for task in wanted):
        raise Fault(f"task={shown(value)}: expected a task's number, or a list as in task=[0,3]")
    if missing := sorted(set(wanted) - set(kept)):
        where = f"the {phase} of task {shown(missing)[1:-1]}"
        raise Fault(f"task={shown(value)}: the run has kept no net of {where}; it has those of {shown(kept)[1:-1]}")
    return tuple(sorted(set(wanted)))
