"""The same task again and again: what there is to see without any shift."""

from __future__ import annotations

from taskshift.data.labelled_data import LabelledData
from taskshift.shifts.classification import as_they_are, classification_task
from taskshift.shifts.task import Task, TaskShift


class Stationary(TaskShift):
    """Every task is the data as they are."""

    def __init__(self, seed: int):
        self.seed = seed

    def task(self, data: LabelledData, index: int) -> Task:
        return classification_task(data, index, as_they_are)
