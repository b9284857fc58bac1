"""Three convolutions and three linear layers: the net of much work on lost plasticity in image tasks."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from taskshift.nets.activations import ActivationName, activated_width, activation_module
from taskshift.nets.initialisation import InitializationName, initialise
from taskshift.nets.layer_kinds import LayerName, convolution, linear
from taskshift.nets.layers import NormName, at_least_one, channel_norm, hidden_layers, image_shape
from taskshift.nets.weights import load_checkpoint

KERNELS = (5, 3, 3)


class ConvNet(nn.Module):
    """Convolutions 5×5, 3×3, 3×3 without padding, each with norm, activation and 2×2 max pooling; two hidden linear layers; head.

    With 3 channels and 10 outputs: 129 098 parameters at 28×28, 178 250 at 32×32. On 24×24 its last map is a single pixel;
    on 23×23 nothing would be left.
    """

    smallest_side = 24

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_outputs: int,
        channels: tuple[int, int, int] = (32, 64, 128),
        width: int = 128,
        activation: ActivationName = "relu",
        norm: NormName = "none",
        bias: bool = True,
        layer: LayerName = "linear",
        initialization: InitializationName = "default",
        checkpoint: str | None = None,
    ):
        super().__init__()
        colours, height, breadth = image_shape(input_shape, self.smallest_side, "convnet")
        at_least_one(**{f"channels[{number}]": count for number, count in enumerate(channels)}, width=width)
        self.features = nn.Sequential(OrderedDict(_features((colours, *channels), activation, norm, bias, layer)))
        flat = activated_width(activation, channels[-1]) * _pooled(height) * _pooled(breadth)
        self.hidden = hidden_layers((flat, width, width), activation=activation, norm=norm, bias=bias, layer=layer)
        self.head = linear(layer, activated_width(activation, width), num_outputs, bias=bias)
        initialise(self, initialization, activation, head=self.head)
        load_checkpoint(self, checkpoint)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, C, H, W] → [B, num_outputs]."""
        return self.head(self.hidden(self.features(inputs).flatten(1)))


def _features(
    channels: tuple[int, ...], activation: ActivationName, norm: NormName, bias: bool, layer: LayerName
) -> list[tuple[str, nn.Module]]:
    named: list[tuple[str, nn.Module]] = []
    given = channels[0]
    for number, (kernel, made) in enumerate(zip(KERNELS, channels[1:], strict=True), start=1):
        named.append((f"conv_{number}", convolution(layer, given, made, kernel, bias=bias)))
        named += [(f"norm_{number}", module) for module in channel_norm(norm, made)]
        named += [(f"activation_{number}", activation_module(activation, made)), (f"pool_{number}", nn.MaxPool2d(2))]
        given = activated_width(activation, made)
    return named


def _pooled(side: int) -> int:
    """How long a side is after the three convolutions and poolings."""
    for kernel in KERNELS:
        side = (side - kernel + 1) // 2
    return side
