"""A multi-layer perceptron on flattened inputs."""

from __future__ import annotations

from collections import OrderedDict
from math import prod

from torch import Tensor, nn

from taskshift.nets.activations import ActivationName, activation_module
from taskshift.nets.initialisation import InitializationName, initialise
from taskshift.nets.layers import NormName, at_least_one, feature_norm
from taskshift.nets.weights import load_checkpoint


class MLP(nn.Module):
    """`depth` hidden layers of `width` units, each linear, norm, activation; then a linear head."""

    smallest_side = 1

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_outputs: int,
        depth: int = 2,
        width: int = 100,
        activation: ActivationName = "relu",
        norm: NormName = "none",
        bias: bool = True,
        initialization: InitializationName = "default",
        checkpoint: str | None = None,
    ):
        super().__init__()
        at_least_one(depth=depth, width=width)
        widths = [prod(input_shape)] + [width] * depth
        self.hidden = nn.Sequential(OrderedDict(_hidden(widths, activation, norm, bias)))
        self.head = nn.Linear(width, num_outputs, bias=bias)
        initialise(self, initialization, activation, head=self.head)
        load_checkpoint(self, checkpoint)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, …] → [B, num_outputs]."""
        return self.head(self.hidden(inputs.flatten(1)))


def _hidden(widths: list[int], activation: ActivationName, norm: NormName, bias: bool) -> list[tuple[str, nn.Module]]:
    named = []
    for number, (fan_in, width) in enumerate(zip(widths, widths[1:], strict=False), start=1):
        named.append((f"linear_{number}", nn.Linear(fan_in, width, bias=bias)))
        named += [(f"norm_{number}", module) for module in feature_norm(norm, width)]
        named.append((f"activation_{number}", activation_module(activation)))
    return named
