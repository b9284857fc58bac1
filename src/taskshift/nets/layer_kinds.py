"""Layers with weights by name: the one table in which a net finds its linear layers and convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args

from torch import nn
from torch.nn.utils.parametrizations import weight_norm

LayerName = Literal["linear", "weight_norm"]

Weighted = TypeVar("Weighted", nn.Linear, nn.Conv2d)

LAYERS: dict[str, Callable[[Any], Any]] = {
    "linear": lambda layer: layer,
    "weight_norm": weight_norm,  # W = g·V/‖V‖, a g for each unit or channel (Salimans and Kingma 2016)
}
"""Name → a plain layer with its weights drawn, as that kind of layer: the same function at first, other parameters."""


def linear(layer: LayerName, fan_in: int, width: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer [B, fan_in] → [B, width]."""
    return _as(layer, nn.Linear(fan_in, width, bias=bias))


def convolution(layer: LayerName, given: int, made: int, size: int, **options: Any) -> nn.Conv2d:
    """A convolution of `size` × `size` from `given` to `made` channels; `options` are torch's."""
    return _as(layer, nn.Conv2d(given, made, size, **options))


def _as(layer: LayerName, plain: Weighted) -> Weighted:
    if layer not in LAYERS:
        raise ValueError(f"layer={layer!r} is not known; choose one of {', '.join(get_args(LayerName))}")
    return LAYERS[layer](plain)
