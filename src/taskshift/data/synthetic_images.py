"""Made-up images of any size: each class has a smooth pattern of its own, and every example adds noise to it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from taskshift.data.augment import Augment
from taskshift.data.labelled_data import LabelledData
from taskshift.data.normalised import Images, normalised
from taskshift.randomness import generator


def synthetic_images(
    num_classes: int = 10,
    channels: int = 1,
    side: int = 8,
    train_size: int = 512,
    test_size: int = 128,
    noise: float = 0.3,
    pattern_seed: int = 0,
    augment: Augment | None = None,
) -> LabelledData:
    """`train_size` and `test_size` images [channels, side, side], the classes as equally frequent as they can be.

    A pixel is its class's pattern, in [0, 1], plus normal noise of standard deviation `noise`, cut off below at 0 (black).
    At the default a net learns them within a few epochs, and not at once.
    """
    _check(num_classes=num_classes, channels=channels, side=side, train_size=train_size, test_size=test_size)
    if noise < 0:
        raise ValueError(f"noise={noise} was asked for; give a standard deviation, 0 or more")
    patterns = smooth_patterns(num_classes, channels, side, generator(pattern_seed, "patterns"))
    train = _noisy(patterns, train_size, noise, generator(pattern_seed, "train"))
    test = _noisy(patterns, test_size, noise, generator(pattern_seed, "test"))
    return normalised("synthetic_images", train, test, num_classes=num_classes, augment=augment)


def smooth_patterns(count: int, channels: int, side: int, draw: torch.Generator) -> Tensor:
    """`count` random images [count, channels, side, side] with values in [0, 1], smooth over a quarter of their side."""
    coarse = torch.rand(count, channels, 4, 4, generator=draw)
    return nn.functional.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=True)


def _noisy(patterns: Tensor, size: int, noise: float, draw: torch.Generator) -> Images:
    labels = torch.randperm(size, generator=draw) % len(patterns)
    pixels = patterns[labels]
    pixels += noise * torch.randn(pixels.shape, generator=draw)
    return Images(pixels.clamp_(min=0), labels)


def _check(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}={count} was asked for; give a whole number, 1 or more")
