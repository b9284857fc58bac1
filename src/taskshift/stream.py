"""The sequence of tasks over a data set, and their examples in batches."""

from __future__ import annotations

import torch
from torch import Tensor

from taskshift.data.labelled_data import LabelledData
from taskshift.randomness import generator, seed_from
from taskshift.shifts.indexed_source import IndexedSource
from taskshift.shifts.source import StreamSettings
from taskshift.shifts.task import Batch, Task, TaskShift


class TaskStream(IndexedSource):
    """The tasks that a shift makes of a data set; an epoch shows every training example once, in an order of its own."""

    def __init__(self, data: LabelledData, shift: TaskShift, *, num_tasks: int, batch_size: int, seed: int):
        super().__init__(
            StreamSettings(num_tasks, batch_size, seed, data.device),
            name=data.name,
            input_shape=data.input_shape,
            num_outputs=shift.num_outputs(data),
        )
        self.data, self.shift, self.note = data, shift, data.note

    def task(self, index: int) -> Task:
        return self.shift.task(self.data, index)

    def num_examples(self, task: Task) -> int:
        return len(task.train)

    def order(self, task: Task, epoch: int) -> Tensor:
        order = torch.randperm(len(task.train), generator=generator(self.seed, "order", task.index, epoch))
        return task.train[order.to(task.train.device)]

    def gather(self, task: Task, indices: Tensor) -> Batch:
        return task.view(*self._examples(indices), indices)

    def gather_to_learn(self, task: Task, indices: Tensor, *, epoch: int, first: int) -> Batch:
        """Augmented: the noise of a batch goes by its number."""
        if self.data.augment is None:
            return self.gather(task, indices.flatten())
        inputs, targets = self._examples(indices.flatten())
        noise, pieces = torch.Generator(device=self.device), []
        for number, batch in enumerate(inputs.split(indices.shape[1]), start=first):
            noise.manual_seed(seed_from(self.seed, "augmentation", task.index, epoch, number))
            pieces.append(self.data.augment(batch, noise))
        return task.view(torch.cat(pieces), targets, indices.flatten())

    def _examples(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.data.inputs.index_select(0, indices), self.data.targets.index_select(0, indices)
