"""Each task names the classes in an order of its own."""

from __future__ import annotations

import torch

from taskshift.data.labelled_data import LabelledData
from taskshift.randomness import generator
from taskshift.shifts.classification import Relabelled, as_they_are, classification_task
from taskshift.shifts.task import Task, TaskShift


class PermutedOutput(TaskShift):
    """y' = order[y], one order a task: what was learned still separates the classes, only the head has to change.

    `shift_first_task=False` leaves task 0 with the labels of the data.
    """

    def __init__(self, seed: int, shift_first_task: bool = True):
        self.seed, self.shift_first_task = seed, shift_first_task

    def task(self, data: LabelledData, index: int) -> Task:
        if index == 0 and not self.shift_first_task:
            return classification_task(data, index, as_they_are)
        order = torch.randperm(data.num_classes, generator=generator(self.seed, "permuted_output", index))
        return classification_task(data, index, Relabelled(order.to(data.device)))
