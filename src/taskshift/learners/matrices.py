"""The weights of linear layers and convolutions as matrices, by the names of a net's parameters."""

from __future__ import annotations

from torch import Tensor, nn

from taskshift.learners.part import Start

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose weights are [units, …]; a transposed convolution's units lie along another axis."""


def matrix_names(start: Start) -> tuple[str, ...]:
    """The trained weights of linear layers and convolutions: a row an output unit or channel.

    Raises ValueError where there are none, and where a weight is computed from other parameters: what is done to these does
    something else to it.
    """
    for name in start.trained:
        layer, found, _ = name.partition(".parametrizations.")
        if found:
            raise ValueError(f"the weight of {layer} is computed from other parameters (net.layer); it can't be worked on here")
    names = tuple(name for name in start.trained if _is_weight(start.module, name))
    if not names:
        raise ValueError("the net has no trained linear layer and no convolution, so there is no weight to work on")
    return names


def as_matrix(weight: Tensor) -> Tensor:
    """[units, …] → [units, fan-in]."""
    return weight.flatten(1)


def _is_weight(net: nn.Module, name: str) -> bool:
    layer, _, own = name.rpartition(".")
    return own == "weight" and isinstance(net.get_submodule(layer), LAYERS)
