"""The weights of linear layers and convolutions as matrices, by the names of a net's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor

from taskshift.learners.part import Start, Tensors


def matrix_names(start: Start) -> tuple[str, ...]:
    """The trained parameters of two dimensions or more: a row an output unit or channel.

    Raises ValueError where a weight is computed from other parameters: what is done to these does something else to it.
    """
    for name in start.trained:
        layer, found, _ = name.partition(".parametrizations.")
        if found:
            raise ValueError(
                f"the weight of {layer} is computed from other parameters (net.layer), so it can't be worked on here"
            )
    return tuple(name for name in start.trained if start.net[name].dim() > 1)


def as_matrix(weight: Tensor) -> Tensor:
    """[units, …] → [units, fan-in]."""
    return weight.flatten(1)


def fan_in(weight: Tensor) -> int:
    """How many inputs a unit of the weight [units, …] sees."""
    return prod(weight.shape[1:])


def biases_of(names: Sequence[str], net: Tensors) -> dict[str, str]:
    """The bias that goes with each of these weights, where its layer has one: the weight's name → the bias's."""
    candidates = {name: f"{name.removesuffix('weight')}bias" for name in names if name.endswith("weight")}
    return {name: bias for name, bias in candidates.items() if bias in net}
