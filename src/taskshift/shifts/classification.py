"""Tasks whose targets are classes: cross-entropy and accuracy, over all outputs or some of them."""

from __future__ import annotations

import torch
from torch import Tensor

from taskshift.data.labelled_data import LabelledData
from taskshift.shifts.losses import CrossEntropy
from taskshift.shifts.task import Batch, Task, View


class Accuracy:
    """1 where the largest active output is the target's, else 0, an example."""

    def __init__(self, active: Tensor | None = None):
        self.active = active  # [K] bool

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """outputs [B, K], targets [B] → [B] in the outputs' dtype."""
        if self.active is not None:
            outputs = outputs.masked_fill(~self.active, -torch.inf)
        return (outputs.argmax(dim=1) == targets).to(outputs.dtype)


def classification_task(
    data: LabelledData,
    index: int,
    view: View,
    *,
    train: Tensor | None = None,
    test: Tensor | None = None,
    validation: Tensor | None = None,
    active: Tensor | None = None,
) -> Task:
    """A task of classes: all of the data unless `train`, `test` and `validation` say which, all outputs but for `active` [K]."""
    return Task(
        index=index,
        train=data.train if train is None else train,
        test=data.test if test is None else test,
        view=view,
        loss=CrossEntropy(active),
        metrics={"accuracy": Accuracy(active)},
        validation=data.validation if validation is None else validation,
    )


def as_they_are(inputs: Tensor, targets: Tensor, indices: Tensor) -> Batch:
    """The view that changes nothing."""
    return Batch(inputs, targets)


class Relabelled:
    """The view that gives every example of a class the label `table[class]`."""

    def __init__(self, table: Tensor):
        self.table = table

    def __call__(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> Batch:
        return Batch(inputs, self.table[targets])
