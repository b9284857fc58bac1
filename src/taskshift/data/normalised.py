"""From raw images to `LabelledData`: cut to size, normalised once by the training split, held in one tensor."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from taskshift.data.augment import Augment
from taskshift.data.labelled_data import LabelledData
from taskshift.randomness import generator

PixelRange = tuple[float, float] | None
"""What black and white become; None: by the channels' statistics."""


class Images(NamedTuple):
    """One split as it is stored: pixels of any dtype, 0 for black."""

    pixels: Tensor  # [N, C, H, W]
    labels: Tensor  # [N]


class Subset(NamedTuple):
    """How many examples of each split are kept (None: all), the first of a shuffle by `seed`."""

    train_size: int | None
    test_size: int | None
    seed: int


class Scaling(NamedTuple):
    """0 … `white` becomes `pixel_range`."""

    pixel_range: tuple[float, float]
    white: float

    def of(self, channels: int) -> tuple[Tensor, Tensor]:
        """What is taken off each channel's pixels, and what they are divided by then, [C] each."""
        low, high = self.pixel_range
        if not low < high:
            raise ValueError(f"pixel_range is [{low}, {high}]; the first must be smaller than the second")
        divisor = self.white / (high - low)
        return torch.full((channels,), -low * divisor), torch.full((channels,), divisor)


def normalised(
    name: str,
    train: Images,
    test: Images,
    *,
    num_classes: int,
    subset: Subset | None = None,
    augment: Augment | None = None,
    scaling: Scaling | None = None,
) -> LabelledData:
    """The two splits, each channel shifted and scaled to mean 0 and variance 1 over the whole training split, or by `scaling`.

    Those that `subset` keeps have the pixel values that they have in the whole set.
    """
    mean, deviation = channel_statistics(train.pixels) if scaling is None else scaling.of(train.pixels.shape[1])
    if subset is not None:
        train = first_shuffled(train, subset.train_size, "train_size", subset.seed)
        test = first_shuffled(test, subset.test_size, "test_size", subset.seed)
    inputs = torch.cat([train.pixels, test.pixels]).to(torch.float32)
    inputs.sub_(mean.view(-1, 1, 1)).div_(deviation.view(-1, 1, 1))
    black = (torch.zeros_like(mean) - mean) / deviation
    indices = torch.arange(len(inputs))
    return LabelledData(
        name=name,
        inputs=inputs,
        targets=torch.cat([train.labels, test.labels]).to(torch.int64),
        train=indices[: len(train.labels)],
        test=indices[len(train.labels) :],
        num_classes=num_classes,
        black=black,
        augment=None if augment is None else augment.padded_with(black),
    )


def first_shuffled(split: Images, size: int | None, name: str, seed: int) -> Images:
    """`size` examples of a split (None: all, in their order), the first of a shuffle that depends on `seed` alone."""
    if size is None:
        return split
    total = len(split.labels)
    if not 1 <= size <= total:
        raise ValueError(f"{name}={size} was asked for; the split has {total} examples, so give 1 to {total}, or null for all")
    kept = torch.randperm(total, generator=generator(seed, name))[:size]
    return Images(split.pixels[kept], split.labels[kept])


def channel_statistics(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [C] of each channel of [N, C, H, W]; a constant channel's deviation is 1."""
    statistics = [_mean_and_deviation(pixels[:, channel]) for channel in range(pixels.shape[1])]
    mean, deviation = (torch.tensor(values, dtype=torch.float32) for values in zip(*statistics, strict=True))
    return mean, torch.where(deviation > 0, deviation, 1.0)


def _mean_and_deviation(values: Tensor) -> tuple[float, float]:
    if values.dtype == torch.uint8:  # exact, and a tenth of the time: only 256 values can occur
        levels = torch.arange(256, dtype=torch.float64)
        share = torch.bincount(values.reshape(-1), minlength=256).double() / values.numel()
        mean = (share * levels).sum()
        return mean.item(), (share * (levels - mean) ** 2).sum().sqrt().item()
    deviation, mean = torch.std_mean(values.to(torch.float64), correction=0)
    return mean.item(), deviation.item()
