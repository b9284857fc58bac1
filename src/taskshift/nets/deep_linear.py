"""A deep linear net: what it computes is linear in its input, how it learns is not."""

from __future__ import annotations

from torch import Tensor, nn

from taskshift.nets.initialisation import InitializationName, initialise
from taskshift.nets.layer_kinds import LayerName, linear
from taskshift.nets.layers import flat_widths, hidden_layers
from taskshift.nets.weights import load_checkpoint


class DeepLinear(nn.Module):
    """`depth` linear layers of `width` units without activations, then a linear head (Saxe et al. 2014)."""

    smallest_side = 1

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_outputs: int,
        depth: int = 2,
        width: int = 100,
        bias: bool = False,
        layer: LayerName = "linear",
        initialization: InitializationName = "default",
        checkpoint: str | None = None,
    ):
        super().__init__()
        self.hidden = hidden_layers(flat_widths(input_shape, depth, width), bias=bias, layer=layer)
        self.head = linear(layer, width, num_outputs, bias=bias)
        initialise(self, initialization, "identity", head=self.head)
        load_checkpoint(self, checkpoint)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, …] → [B, num_outputs]."""
        return self.head(self.hidden(inputs.flatten(1)))
