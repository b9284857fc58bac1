"""Snapshots of the net, spread evenly over a task's steps."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from taskshift import checkpoint
from taskshift.run_folder import RunFolder


def steps(num_steps: int, max_points: int) -> frozenset[int]:
    """At most `max_points` step counts from 0 (before the first step) to `num_steps`, both among them where there is room."""
    points = min(max_points, num_steps + 1)
    if points == 1:
        return frozenset({num_steps})
    return frozenset(round(index * num_steps / (points - 1)) for index in range(points))


def place(folder: RunFolder, task: int, step: int) -> Path:
    """Where the net's state after `step` steps of the task is kept."""
    return folder.trajectory(task) / f"step_{step:09d}.pt"


def keep_point(folder: RunFolder, task: int, step: int, net: nn.Module) -> None:
    """Save the net's state after `step` steps of the task, once: a resumed run finds the same bits there."""
    path = place(folder, task, step)
    if not path.exists():
        checkpoint.save(path, net.state_dict())


def points(folder: RunFolder, task: int) -> Sequence[Path]:
    """The task's snapshots in the order of their steps."""
    return sorted(folder.trajectory(task).glob("step_*.pt"))


def forget_before(folder: RunFolder, task: int) -> None:
    """Remove the snapshots of finished tasks; each one's last state stays as its checkpoint."""
    for path in folder.trajectories_before(task):
        shutil.rmtree(path)
