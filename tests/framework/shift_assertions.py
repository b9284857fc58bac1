"""What every task shift promises, as assertions for any shift on any data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from torch import Tensor

from taskshift.config.targets import resolve
from taskshift.data.labelled_data import LabelledData
from taskshift.shifts.task import Batch, Task, TaskShift


def _is_shift(path: Path) -> bool:
    return issubclass(resolve(yaml.safe_load(path.read_text())["task_shift"]["_target_"], object, ""), TaskShift)


FILES = sorted(path for path in Path("conf/task_shift_mode").glob("*.yaml") if path.stem != "own")
MODES = {path.stem: path for path in FILES if _is_shift(path)}
"""The modes that show a data set; others make their own examples."""

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def shown(task: Task, data: LabelledData, indices: Tensor | None = None) -> Batch:
    """Examples as `task` shows them; all that it trains on and tests on by default."""
    indices = torch.cat([task.train, task.test]) if indices is None else indices
    return task.view(data.inputs[indices], data.targets[indices], indices)


def fingerprint(task: Task, data: LabelledData) -> list[Tensor]:
    """All there is to know of a task: its examples, what they look like, and its loss on some outputs."""
    inputs, targets = shown(task, data)
    outputs = torch.linspace(-2, 2, len(targets) * data.num_classes, dtype=torch.float64, device=data.device)
    return [task.train, task.test, inputs, targets, task.loss(outputs.view(len(targets), -1), targets)]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(a.shape == b.shape and torch.equal(a.cpu(), b.cpu()) for a, b in zip(one, other, strict=True))


def assert_pure_in_index(make: Callable[[int], TaskShift], data: LabelledData, num_tasks: int = 4) -> None:
    """`make(seed)` shows the same task `index` in any order, in any instance, whatever else drew random numbers meanwhile."""
    sequential = make(1)
    expected = [fingerprint(sequential.task(data, index), data) for index in range(num_tasks)]
    state = torch.get_rng_state()
    again = [fingerprint(sequential.task(data, index), data) for index in range(num_tasks)]
    assert torch.equal(state, torch.get_rng_state()), "drew from torch's default generator"
    assert all(map(same, expected, again)), "the same object shows another task when asked again"
    fresh = make(1)
    for index in (num_tasks - 1, 0, num_tasks - 2):
        torch.rand(7)
        assert same(expected[index], fingerprint(fresh.task(data, index), data)), f"task {index} depends on what came before"


def assert_whole(task: Task, data: LabelledData, num_outputs: int) -> None:
    """The task's examples come from the right splits, and its loss and metrics take what its view gives."""
    assert torch.isin(task.train, data.train).all(), "trains on test examples"
    assert torch.isin(task.test, data.test).all(), "tests on training examples"
    assert len(task.train) > 0
    assert len(task.test) > 0
    inputs, targets = shown(task, data, task.train[:5])
    assert inputs.shape == (5, *data.input_shape)
    assert inputs.dtype == data.inputs.dtype
    assert targets.dtype == torch.int64
    assert inputs.device.type == targets.device.type == data.device.type
    outputs = torch.randn(5, num_outputs, device=data.device)
    assert task.loss(outputs, targets).shape == ()
    for metric in task.metrics.values():
        assert metric(outputs, targets).shape == (5,)
