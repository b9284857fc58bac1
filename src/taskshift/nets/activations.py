"""Activations by name. Every call makes a module of its own, so that each place in a net can be hooked and traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from torch import nn

ActivationName = Literal["relu", "leaky_relu", "tanh", "sigmoid", "elu", "selu", "gelu", "silu", "identity"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,  # slope 0.01 below zero
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,  # the exact one, x·Φ(x)
    "silu": nn.SiLU,
    "identity": nn.Identity,
}


def activation_module(name: ActivationName) -> nn.Module:
    """A new module, never in place: curvature and hooks read what went in."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation={name!r} is not known; choose one of {', '.join(get_args(ActivationName))}")
    return ACTIVATIONS[name]()
