"""The pieces that several nets share: hidden linear layers, norms by name, and the check of an image's size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Literal, get_args

from torch import Tensor, nn

from taskshift.nets.activations import ActivationName, activated_width, activation_module
from taskshift.nets.layer_kinds import LayerName, linear
from taskshift.nets.online_norm import OnlineNorm

NormName = Literal["none", "batch", "layer", "group", "rms", "online"]


def flat_widths(input_shape: Sequence[int], depth: int, width: int) -> list[int]:
    """How many features a flattened input has, then `width` for each of `depth` hidden layers."""
    at_least_one(depth=depth, width=width)
    return [prod(input_shape)] + [width] * depth


def hidden_layers(
    widths: Sequence[int],
    *,
    activation: ActivationName | None = None,
    norm: NormName = "none",
    bias: bool = True,
    layer: LayerName = "linear",
) -> nn.Sequential:
    """From each of `widths` to the next: `linear_1`, `norm_1`, `activation_1`, `linear_2` …; all linear without an activation.

    An activation that widens gives the next layer so many more inputs.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    fan_in = widths[0]
    for number, width in enumerate(widths[1:], start=1):
        layers[f"linear_{number}"] = linear(layer, fan_in, width, bias=bias)
        layers |= {f"norm_{number}": module for module in feature_norm(norm, width)}
        fan_in = width
        if activation is not None:
            layers[f"activation_{number}"] = activation_module(activation, width)
            fan_in = activated_width(activation, width)
    return nn.Sequential(layers)


GROUP_SIZE = 16
"""Channels of a group where that divides them, as in the better half of Wu and He's table 3."""


def group_norm(channels: int) -> nn.GroupNorm:
    """Of groups of `GROUP_SIZE` channels, or the next larger number that divides them; one group where there are fewer."""
    sizes = range(min(GROUP_SIZE, channels), channels + 1)
    return nn.GroupNorm(channels // next(size for size in sizes if channels % size == 0), channels)


class ChannelRMSNorm(nn.RMSNorm):
    """Each example's map [C, H, W] over its root mean square, with a scale for each channel: what RMSNorm is for vectors."""

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__(channels, eps=eps)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] → the same shape."""
        size = maps.square().mean(dim=(1, 2, 3), keepdim=True)
        return maps * (size + self.eps).rsqrt() * self.weight[:, None, None]


Norm = Callable[[int], nn.Module]
"""The number of features or channels → a norm of them."""

NORMS: dict[str, tuple[Norm, Norm] | None] = {
    "none": None,
    "batch": (nn.BatchNorm1d, nn.BatchNorm2d),
    "layer": (nn.LayerNorm, partial(nn.GroupNorm, 1)),  # of maps: over (C, H, W) of one example, with a scale for each channel
    "group": (group_norm, group_norm),  # over a group of features or channels of one example (Wu and He 2018)
    "rms": (partial(nn.RMSNorm, eps=1e-5), ChannelRMSNorm),  # the same without the mean (Zhang and Sennrich 2019)
    "online": (OnlineNorm, OnlineNorm),  # of the examples before, one after the other (Chiley et al. 2019)
}
"""Name → the norm of [B, width] features and that of [B, channels, H, W] maps."""


def feature_norm(name: NormName, width: int) -> list[nn.Module]:
    """The norm of [B, width] features, as a list that is empty for `none`."""
    found = NORMS[known(name)]
    return [] if found is None else [found[0](width)]


def channel_norm(name: NormName, channels: int) -> list[nn.Module]:
    """The norm of [B, channels, H, W] maps, likewise."""
    found = NORMS[known(name)]
    return [] if found is None else [found[1](channels)]


def known(name: NormName) -> NormName:
    if name not in NORMS:
        raise ValueError(f"norm={name!r} is not known; choose one of {', '.join(get_args(NormName))}")
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
