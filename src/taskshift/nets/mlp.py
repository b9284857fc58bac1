"""A multi-layer perceptron on flattened inputs."""

from __future__ import annotations

from torch import Tensor, nn

from taskshift.nets.activations import ActivationName, activated_width
from taskshift.nets.initialisation import InitializationName, initialise
from taskshift.nets.layer_kinds import LayerName, linear
from taskshift.nets.layers import NormName, flat_widths, hidden_layers
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
        layer: LayerName = "linear",
        initialization: InitializationName = "default",
        checkpoint: str | None = None,
    ):
        super().__init__()
        widths = flat_widths(input_shape, depth, width)
        self.hidden = hidden_layers(widths, activation=activation, norm=norm, bias=bias, layer=layer)
        self.head = linear(layer, activated_width(activation, width), num_outputs, bias=bias)
        initialise(self, initialization, activation, head=self.head)
        load_checkpoint(self, checkpoint)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, …] → [B, num_outputs]."""
        return self.head(self.hidden(inputs.flatten(1)))
