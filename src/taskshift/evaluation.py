"""Averages of a task's loss and metrics over examples, leaving the net as it was."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from taskshift.learners.forward import eval_mode
from taskshift.learners.learner import Step
from taskshift.progress import EpochSums
from taskshift.shifts.task import Batch, Task


def averages(net: nn.Module, task: Task, batches: Iterable[Batch]) -> dict[str, float]:
    """Mean loss (`loss`) and metrics over all examples of `batches`, in eval mode, without gradients."""
    sums = EpochSums()
    with eval_mode(net), torch.no_grad():
        for inputs, targets in batches:
            outputs = net(inputs)
            sums.add(task, Step(task.loss(outputs, targets), outputs), targets)
    return sums.means()
