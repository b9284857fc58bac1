"""Nets that were trained elsewhere: a file of weights, or a run of train.py, and the way the net went."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taskshift import checkpoint, trajectory
from taskshift.config.saved import read_config
from taskshift.faults import Fault
from taskshift.job import Job
from taskshift.nets.weights import fitting_state
from taskshift.run_folder import RunFolder

OF_A_RUN = ("seed", "batch_size", "plugins", "data", "net", "learner", "task_shift", "task_shift_mode", "arch")
"""What a run's own config says of its net and its tasks."""


@dataclass(frozen=True)
class Elsewhere:
    """A net in a file, the task it is looked at on, and snapshots of its way there."""

    net: Path
    path: tuple[Path, ...] = ()
    task: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)  # of the run that it comes from, as far as it counts here
    earlier: Mapping[int, Path] = field(default_factory=dict)  # that run's nets at earlier tasks' ends

    def described(self) -> dict[str, Any]:
        """What makes it another net than any other."""
        files = {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in (self.net, *self.path)}
        return {"task": self.task, "net": files[str(self.net)], "path": [files[str(file)] for file in self.path]}

    def config_for(self, plan: Mapping[str, Any]) -> dict[str, Any]:
        """What replaces keys of a plan's run: all that the run said, but for where the data lie now."""
        own = dict(self.config)
        if "root" in own.get("data", {}) and "root" in plan["data"]:
            own["data"] = own["data"] | {"root": plan["data"]["root"]}
        return own

    def load_into(self, job: Job) -> None:
        """Put the net into the job's training, and let the job stand where its training ends."""
        job.parts.training.load_net(_fitting(job, self.net))
        job.move(task=self.task)

    def keep_path(self, job: Job) -> None:
        """Copy the snapshots to where the job keeps its own, the net itself as the last of them."""
        if not self.path:
            return
        states, steps = [_fitting(job, file) for file in self.path], _steps(self.path)
        net = job.parts.training.net
        for step, state in zip(steps, states, strict=True):
            checkpoint.save(trajectory.place(job.folder, self.task, step), state)
        if checkpoint.first_difference(dict(states[-1]), checkpoint.cloned(dict(net.state_dict()))) is not None:
            trajectory.keep_point(job.folder, self.task, steps[-1] + 1, net)


def net_from(place: Path, path: Sequence[Path] = (), task: int | None = None) -> Elsewhere:
    """The net of a file, or of a run's folder: that at the end of its task number `task`, or of the last that it kept.

    A run's way is its nets at the ends of its tasks, the new one first, unless `path` gives another.
    """
    if not place.is_dir():
        if task is not None:
            raise Fault(f"--of-task {task}: {place} is one net; tasks are chosen from a run's folder, given as --checkpoint")
        return Elsewhere(place, tuple(path))
    config = read_config(place)
    run = RunFolder(place, config["arch"])
    kept = run.nets_before(config["num_tasks"])
    if not kept:
        raise Fault(f"{place} has kept no net yet: one is saved at each task's end")
    chosen = max(kept) if task is None else task
    if chosen not in kept:
        raise Fault(f"--of-task {chosen}: {place} has kept the nets of the tasks {', '.join(map(str, kept))}")
    earlier = {index: file for index, file in kept.items() if index < chosen}
    own = (run.initial, *earlier.values(), kept[chosen])
    return Elsewhere(kept[chosen], tuple(path) or own, chosen, {key: config[key] for key in OF_A_RUN}, earlier)


def _fitting(job: Job, file: Path) -> dict[str, Any]:
    try:
        return dict(fitting_state(job.parts.training.net, file))
    except ValueError as error:
        raise Fault(str(error)) from error


def _steps(files: Sequence[Path]) -> list[int]:
    """The numbers at the ends of the files' names where they grow from each to the next, else the places in their order."""
    found = [re.search(r"(\d+)$", file.stem) for file in files]
    steps = [int(one[1]) for one in found if one]
    grow = len(steps) == len(files) and all(a < b for a, b in zip(steps, steps[1:], strict=False))
    return steps if grow else list(range(len(files)))
