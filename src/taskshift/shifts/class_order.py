"""Tasks that show some of the classes: which, in what order, until they run out."""

from __future__ import annotations

import torch
from torch import Tensor

from taskshift.data.labelled_data import LabelledData
from taskshift.randomness import generator


def class_groups(data: LabelledData, size: int, *, seed: int, mode: str) -> Tensor:
    """All classes once, in a seeded order, `size` a row: [num_classes // size, size]; what is left over is in none."""
    num_groups = data.num_classes // size
    if num_groups == 0:
        raise ValueError(f"{mode} shows {size} classes a task but {data.name} has {data.num_classes} in all")
    order = torch.randperm(data.num_classes, generator=generator(seed, mode))
    return order[: num_groups * size].view(num_groups, size).to(data.device)


def examples_of(data: LabelledData, split: Tensor, classes: Tensor) -> Tensor:
    """Those examples of `split` whose label is one of `classes`, in the split's order."""
    return split[torch.isin(data.targets[split], classes)]


def refuse_after_end(index: int, num_tasks: int, mode: str) -> None:
    if not 0 <= index < num_tasks:
        raise IndexError(f"task {index} was asked for but the classes last for tasks 0 to {num_tasks - 1} of {mode}")
