"""Each task brings new classes."""

from __future__ import annotations

import torch
from torch import Tensor

from taskshift.data.labelled_data import LabelledData
from taskshift.shifts.class_order import class_groups, examples_of, refuse_after_end
from taskshift.shifts.classification import as_they_are, classification_task
from taskshift.shifts.task import Task, TaskShift


class IncrementalClasses(TaskShift):
    """`classes_per_task` new classes a task, in a seeded order, until they run out; a remainder is never shown.

    `keep_seen` keeps the earlier classes and their examples in the task (Dohare et al. 2024); False shows the new alone.
    The head has an output for every class of the data from the start; loss and accuracy look at the task's classes only.
    """

    def __init__(self, seed: int, classes_per_task: int = 2, keep_seen: bool = True):
        if classes_per_task < 2:
            raise ValueError(f"classes_per_task is {classes_per_task}; 2 or more are needed to tell classes apart")
        self.seed, self.classes_per_task, self.keep_seen = seed, classes_per_task, keep_seen

    def task(self, data: LabelledData, index: int) -> Task:
        groups = self._groups(data)
        refuse_after_end(index, len(groups), "incremental_classes")
        shown = groups[0 if self.keep_seen else index : index + 1].flatten().sort().values
        active = torch.zeros(data.num_classes, dtype=torch.bool, device=data.device)
        active[shown] = True
        return classification_task(
            data,
            index,
            as_they_are,
            train=examples_of(data, data.train, shown),
            test=examples_of(data, data.test, shown),
            validation=examples_of(data, data.validation, shown),
            active=active,
        )

    def num_tasks(self, data: LabelledData) -> int:
        return len(self._groups(data))

    def _groups(self, data: LabelledData) -> Tensor:
        return class_groups(data, self.classes_per_task, seed=self.seed, mode="incremental_classes")
