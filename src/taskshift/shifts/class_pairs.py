"""Each task tells two classes apart."""

from __future__ import annotations

import torch
from torch import Tensor

from taskshift.data.labelled_data import LabelledData
from taskshift.shifts.class_order import class_groups, examples_of, refuse_after_end
from taskshift.shifts.classification import Relabelled, classification_task
from taskshift.shifts.task import Task, TaskShift


class ClassPairs(TaskShift):
    """Pairs of classes in a seeded order, relabelled 0 and 1 for a head of two outputs, until the classes run out.

    With `cycle` the same pairs come again in the same order, for ever, as in Continual ImageNet (Dohare et al. 2024): a thousand
    classes make 500 pairs, and task 500 is task 0 once more.
    """

    def __init__(self, seed: int, cycle: bool = False):
        self.seed, self.cycle = seed, cycle

    def task(self, data: LabelledData, index: int) -> Task:
        pairs = self._pairs(data)
        if not self.cycle:
            refuse_after_end(index, len(pairs), "class_pairs")
        pair = pairs[index % len(pairs)]
        label = torch.zeros(data.num_classes, dtype=torch.int64, device=data.device)
        label[pair[1]] = 1
        return classification_task(
            data,
            index,
            Relabelled(label),
            train=examples_of(data, data.train, pair),
            test=examples_of(data, data.test, pair),
            validation=examples_of(data, data.validation, pair),
        )

    def num_outputs(self, data: LabelledData) -> int:
        return 2

    def num_tasks(self, data: LabelledData) -> int | None:
        num_pairs = len(self._pairs(data))
        return None if self.cycle else num_pairs

    def _pairs(self, data: LabelledData) -> Tensor:
        return class_groups(data, 2, seed=self.seed, mode="class_pairs")
