"""Each task shows the pixels in an order of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from taskshift.data.labelled_data import LabelledData
from taskshift.randomness import generator
from taskshift.shifts.classification import as_they_are, classification_task
from taskshift.shifts.task import Batch, Task, TaskShift


class Permuted(TaskShift):
    """x'[i] = x[order[i]], one order a task, the same for all its examples, training and test.

    `across_channels=False` moves pixels, all channels alike; True permutes all C·H·W entries. Vectors have no channels.
    `shift_first_task=False` shows task 0 as the data are (Kumar et al. 2023); True, the default, permutes it too, so that
    no task is easier than another (for a net with convolutions unpermuted images are).
    """

    def __init__(self, seed: int, across_channels: bool = False, shift_first_task: bool = True):
        self.seed, self.across_channels, self.shift_first_task = seed, across_channels, shift_first_task

    def task(self, data: LabelledData, index: int) -> Task:
        if index == 0 and not self.shift_first_task:
            return classification_task(data, index, as_they_are)
        return classification_task(data, index, PixelOrder(self._order(data, index).to(data.device)))

    def _order(self, data: LabelledData, index: int) -> Tensor:
        """Where each of the D = C·H·W flattened entries is taken from, [D]."""
        rng = generator(self.seed, "permuted", index)
        size = data.inputs[0].numel()
        if self.across_channels or data.inputs.ndim < 4:
            return torch.randperm(size, generator=rng)
        channels = data.inputs.shape[1]
        pixels = torch.randperm(size // channels, generator=rng)
        return (torch.arange(channels)[:, None] * len(pixels) + pixels).flatten()


class PixelOrder:
    """The view that reorders the flattened entries of every example."""

    def __init__(self, order: Tensor):
        self.order = order

    def __call__(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> Batch:
        return Batch(inputs.flatten(1).index_select(1, self.order).view_as(inputs), targets)
