"""Layers with weights by name: the one table in which a net finds its linear layers and convolutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar, get_args

from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import register_parametrization

from taskshift.nets.activations import ActivationName
from taskshift.nets.parametrised import SVD, FixedNorm, FullRankProjection
from taskshift.nets.sandwiched import SandwichConv2d, SandwichLinear
from taskshift.nets.tracked import TrackedConv2d, TrackedLinear

LayerName = Literal[
    "linear",
    "weight_norm",
    "weight_norm_per_layer",
    "fixed_norm",
    "tracked_norm",
    "svd",
    "svd_relu",
    "svd_tanh",
    "full_rank_projection",
]

Weighted = TypeVar("Weighted", nn.Linear, nn.Conv2d)


def _by(make: Callable[[Any], nn.Module], layer: Any) -> Any:
    register_parametrization(layer, "weight", make(layer.weight))
    return layer


@dataclass(frozen=True)
class Layer:
    """A kind of layer: how it is made, and how its weight is written."""

    write: Callable[[Any], Any] = lambda layer: layer
    """A layer with its weight drawn → the same function, other parameters."""
    linear: Callable[..., nn.Linear] = nn.Linear
    convolution: Callable[..., nn.Conv2d] = nn.Conv2d


_SVD = partial(_by, lambda weight: SVD(weight.shape))


def _sandwich(between: ActivationName) -> Layer:
    """An SVD layer with this nonlinearity between its factors."""
    return Layer(_SVD, partial(SandwichLinear, between=between), partial(SandwichConv2d, between=between))


LAYERS: dict[str, Layer] = {
    "linear": Layer(),
    "weight_norm": Layer(weight_norm),  # W_i = g_i V_i/‖V_i‖ for each unit or channel (Salimans and Kingma 2016)
    "weight_norm_per_layer": Layer(partial(weight_norm, dim=None)),  # W = g V/‖V‖, one g a layer
    "fixed_norm": Layer(partial(_by, FixedNorm)),  # W_i = c_i V_i/‖V_i‖, c_i constant
    "tracked_norm": Layer(partial(_by, FixedNorm), TrackedLinear, TrackedConv2d),  # the same, of inputs scaled to mean square 1
    "svd": Layer(_SVD),  # W = N diag(σ) C
    "svd_relu": _sandwich("relu"),  # x → N g φ(diag(σ) C x), φ between the factors
    "svd_tanh": _sandwich("tanh"),
    "full_rank_projection": Layer(partial(_by, FullRankProjection)),  # W = P F, P fixed, F as wide as the inputs
}


def linear(layer: LayerName, fan_in: int, width: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer [B, fan_in] → [B, width]."""
    kind = _kind(layer)
    return kind.write(kind.linear(fan_in, width, bias=bias))


def convolution(layer: LayerName, given: int, made: int, size: int, **options: Any) -> nn.Conv2d:
    """A convolution of `size` × `size` from `given` to `made` channels; `options` are torch's."""
    kind = _kind(layer)
    return kind.write(kind.convolution(given, made, size, **options))


def _kind(layer: LayerName) -> Layer:
    if layer not in LAYERS:
        raise ValueError(f"layer={layer!r} is not known; choose one of {', '.join(get_args(LayerName))}")
    return LAYERS[layer]
