"""The pieces that several nets share: norms by name, and the check of an image's size."""

from __future__ import annotations

from typing import Literal

from torch import nn

NormName = Literal["none", "batch", "layer"]


def feature_norm(name: NormName, width: int) -> list[nn.Module]:
    """The norm of [B, width] features, as a list that is empty for `none`."""
    return {"none": lambda: [], "batch": lambda: [nn.BatchNorm1d(width)], "layer": lambda: [nn.LayerNorm(width)]}[known(name)]()


def channel_norm(name: NormName, channels: int) -> list[nn.Module]:
    """The norm of [B, channels, H, W] maps. `layer` is over (C, H, W) of one example, with a scale for each channel."""
    return {
        "none": lambda: [],
        "batch": lambda: [nn.BatchNorm2d(channels)],
        "layer": lambda: [nn.GroupNorm(1, channels)],
    }[known(name)]()


def known(name: NormName) -> NormName:
    if name not in ("none", "batch", "layer"):
        raise ValueError(f"norm={name!r} is not known; choose one of none, batch, layer")
    return name


def image_shape(input_shape: tuple[int, ...], smallest_side: int, net: str) -> tuple[int, int, int]:
    """`input_shape` as (channels, height, width), or one sentence on why `net` can't take it."""
    if len(input_shape) != 3:
        shape = list(input_shape)
        raise ValueError(f"{net} takes images [C, H, W], but an example has the shape {shape}; choose net=mlp for vectors")
    channels, height, width = input_shape
    if min(height, width) < smallest_side:
        raise ValueError(
            f"{net} takes images of at least {smallest_side}×{smallest_side}, but an example is {height}×{width}; "
            "enlarge the data first, with taskshift.data.resize.enlarged"
        )
    return channels, height, width


def at_least_one(**counts: int) -> None:
    """Raise a ValueError that names the first of `counts` below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}={count} was asked for; give a whole number, 1 or more")
