"""Averages of a task's loss and metrics over examples, leaving the net as it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

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


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[None]:
    """Put every module into eval mode, and each back into its own mode afterwards."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
