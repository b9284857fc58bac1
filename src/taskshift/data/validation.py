"""A part of the training examples set aside, to choose by: settings, or when to stop."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from taskshift.data.labelled_data import LabelledData
from taskshift.randomness import generator


def with_validation(data: LabelledData, size: int | float, *, seed: int) -> LabelledData:
    """The same data with `size` of its training examples as its validation split: a number, or a share below 1.

    Each class gives in proportion to its size, to within one example. The test split stays as it is, and so do the inputs:
    they are normalised by all that the training split was. Raises ValueError where nothing would be left on either side.
    """
    total = len(data.train)
    count = round(size * total) if size < 1 else int(size)
    if not 0 < count < total:
        raise ValueError(
            f"validation.size={size} is {count} of the {total} training examples of {data.name}; "
            f"leave some on both sides: give 1 to {total - 1}, or a share such as 0.1"
        )
    chosen = _evenly(data.targets[data.train].cpu(), count, seed).to(data.device)
    return replace(data, train=data.train[~chosen], validation=torch.cat([data.validation, data.train[chosen]]))


def _evenly(labels: Tensor, count: int, seed: int) -> Tensor:
    """Which `count` of the examples are chosen, [N] bool: of each class the same share.

    Shuffled, the i-th of a class's n examples stands at (i + ½) / n, and the first `count` of all classes together are taken.
    """
    order = torch.randperm(len(labels), generator=generator(seed, "validation"))
    shuffled = labels[order]
    by_class = shuffled.argsort(stable=True)
    sizes = torch.bincount(shuffled)
    begins = sizes.cumsum(0) - sizes
    places = torch.empty(len(labels), dtype=torch.float64)
    ranks = torch.arange(len(labels)) - begins[shuffled[by_class]]
    places[by_class] = (ranks.double() + 0.5) / sizes[shuffled[by_class]]
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[order[places.argsort(stable=True)[:count]]] = True
    return chosen
