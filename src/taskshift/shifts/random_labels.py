"""Each task gives the examples random labels: there is nothing to learn but by heart."""

from __future__ import annotations

import torch
from torch import Tensor

from taskshift.data.labelled_data import LabelledData
from taskshift.randomness import generator
from taskshift.shifts.classification import as_they_are, classification_task
from taskshift.shifts.task import Batch, Task, TaskShift


class RandomLabels(TaskShift):
    """A share `fraction` of all examples, of both splits, gets a label drawn uniformly, anew for every task.

    Training accuracy says how well the net still memorises. Test accuracy on the examples redrawn is chance,
    1 / num_classes, for every learner. `shift_first_task=False` leaves task 0 with the labels of the data.
    """

    def __init__(self, seed: int, fraction: float = 1.0, shift_first_task: bool = True):
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction is {fraction}; the share of examples with random labels is between 0 and 1")
        self.seed, self.fraction, self.shift_first_task = seed, fraction, shift_first_task

    def task(self, data: LabelledData, index: int) -> Task:
        if index == 0 and not self.shift_first_task:
            return classification_task(data, index, as_they_are)
        return classification_task(data, index, LabelPerExample(self._labels(data, index)))

    def _labels(self, data: LabelledData, index: int) -> Tensor:
        """This task's label of every example of the data, [N]."""
        rng = generator(self.seed, "random_labels", index)
        num_examples = len(data.targets)
        redrawn = torch.randperm(num_examples, generator=rng)[: round(self.fraction * num_examples)]
        drawn = torch.randint(data.num_classes, (len(redrawn),), generator=rng)
        return data.targets.index_put((redrawn.to(data.device),), drawn.to(data.device))


class LabelPerExample:
    """The view that gives example number i the label `labels[i]`."""

    def __init__(self, labels: Tensor):
        self.labels = labels

    def __call__(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> Batch:
        return Batch(inputs, self.labels[indices])
