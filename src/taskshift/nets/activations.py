"""Activations by name: the one table in which a net finds its nonlinearity, its gain and how it widens a layer.

Every call makes a module of its own, so that each place in a net can be hooked and traced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from typing import Literal, get_args

import torch
from torch import Tensor, nn

ActivationName = Literal[
    "relu", "leaky_relu", "prelu", "crelu", "maxout", "fourier", "tanh", "sigmoid", "elu", "selu", "gelu", "silu", "identity"
]


@dataclass(frozen=True)
class Activation:
    """How a nonlinearity is made, and what the layers around it must know of it."""

    make: Callable[[int], nn.Module]
    """The number of units or channels that come in → a module, never in place: curvature and hooks read what went in."""
    gain: float
    """What a weight's standard deviation is multiplied by (initialisation.py): where torch's `calculate_gain` has one, the same,
    but for selu; else 1/√E[φ(z)²] for a standard normal z, under which the second moment is kept, as √2 is relu's."""
    widening: Fraction = Fraction(1)
    """How many units or channels come out for one that comes in."""


class CReLU(nn.Module):
    """ReLU of the inputs and of their negatives, side by side along axis 1 (Shang et al. 2016): [B, C, …] → [B, 2C, …]."""

    def forward(self, inputs: Tensor) -> Tensor:
        """The negatives' half comes second."""
        return nn.functional.relu(torch.cat([inputs, -inputs], dim=1))


class MaxOut(nn.Module):
    """The larger of each two neighbours along axis 1 (Goodfellow et al. 2013): [B, C, …] → [B, C/2, …]."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Units 0 and 1, 2 and 3, …"""
        return inputs.unflatten(1, (-1, 2)).amax(dim=2)


class FourierFeatures(nn.Module):
    """Sine and cosine of the inputs, side by side along axis 1 (Lewandowski et al. 2024): [B, C, …] → [B, 2C, …].

    Wherever one of the two is flat, the other is steep, so that no unit saturates.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """The cosines' half comes second."""
        return torch.cat([inputs.sin(), inputs.cos()], dim=1)


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(lambda _: nn.ReLU(), sqrt(2)),
    "leaky_relu": Activation(lambda _: nn.LeakyReLU(), sqrt(2 / (1 + 0.01**2))),  # slope 0.01 below zero
    "prelu": Activation(nn.PReLU, sqrt(2 / (1 + 0.25**2))),  # a slope for each unit or channel, 0.25 at first (He et al. 2015)
    "crelu": Activation(lambda _: CReLU(), sqrt(2), widening=Fraction(2)),
    "maxout": Activation(lambda _: MaxOut(), 1.0, widening=Fraction(1, 2)),
    "fourier": Activation(lambda _: FourierFeatures(), sqrt(2), widening=Fraction(2)),  # sin² + cos² is 1 over two units
    "tanh": Activation(lambda _: nn.Tanh(), 5 / 3),
    "sigmoid": Activation(lambda _: nn.Sigmoid(), 1.0),
    "elu": Activation(lambda _: nn.ELU(), 1.2451983),
    "selu": Activation(lambda _: nn.SELU(), 1.0),  # weights of variance 1/fan_in are its fixed point (Klambauer et al. 2017)
    "gelu": Activation(lambda _: nn.GELU(), 1.5335304),  # the exact one, x·Φ(x)
    "silu": Activation(lambda _: nn.SiLU(), 1.6765325),
    "identity": Activation(lambda _: nn.Identity(), 1.0),
}


def activation_of(name: ActivationName) -> Activation:
    """The activation called `name`; a ValueError that lists them all where there is none."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation={name!r} is not known; choose one of {', '.join(get_args(ActivationName))}")
    return ACTIVATIONS[name]


def activation_module(name: ActivationName, width: int) -> nn.Module:
    """A new module that takes `width` units or channels."""
    return activation_of(name).make(width)


def activated_width(name: ActivationName, width: int) -> int:
    """How many units or channels come out where `width` come in."""
    after = width * activation_of(name).widening
    if after.denominator != 1:
        raise ValueError(f"activation={name!r} takes {after.denominator} units or channels for each one, but a layer has {width}")
    return int(after)
