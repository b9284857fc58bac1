"""The pieces that several nets share: hidden linear layers, norms by name, and the check of an image's size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from math import prod
from typing import Literal

from torch import nn

from taskshift.nets.activations import ActivationName, activated_width, activation_module
from taskshift.nets.layer_kinds import LayerName, linear

NormName = Literal["none", "batch", "layer"]


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
