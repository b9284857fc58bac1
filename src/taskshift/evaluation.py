"""A task's loss and metrics over examples, their averages and each example's own, leaving the net as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from loss_landscape import Estimate
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


def of_examples(net: nn.Module, task: Task, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """The loss and the metrics of each example [n], float64, in eval mode, without gradients.

    A loss that gives no value an example, whatever its reduction, is left out.
    """
    own_loss = copy.copy(task.loss)
    own_loss.reduction = "none"
    found: dict[str, list[Tensor]] = {"loss": []} | {name: [] for name in task.metrics}
    with eval_mode(net), torch.no_grad():
        for inputs, targets in batches:
            outputs, count = net(inputs), len(targets)
            for name, function in ({"loss": own_loss} | dict(task.metrics)).items():
                values = function(outputs, targets)
                if values.dim() > 0 and len(values) == count:
                    found[name].append(values.reshape(count, -1).double().mean(dim=1).cpu())
    return {name: torch.cat(values) for name, values in found.items() if values}


def standard_errors(values: Mapping[str, Tensor]) -> dict[str, float]:
    """`<name>_standard_error` → that of the mean of values [n], were their examples a random draw of all there could be."""
    return {f"{name}_standard_error": Estimate.from_samples(each).standard_error for name, each in values.items()}
