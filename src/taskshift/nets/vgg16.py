"""VGG-16's thirteen convolutions under a small classifier."""

from __future__ import annotations

from torch import Tensor, nn

from taskshift.nets.activations import ActivationName, activated_width, activation_module
from taskshift.nets.initialisation import InitializationName, initialise
from taskshift.nets.layer_kinds import LayerName, convolution, linear
from taskshift.nets.layers import at_least_one, image_shape
from taskshift.nets.weights import load_checkpoint

STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))  # (channels in units of the first stage's, how many convolutions)


class VGG16(nn.Module):
    """Configuration D of Simonyan and Zisserman 2015: five stages of 3×3 convolutions, each ending in 2×2 max pooling.

    What is left is averaged over the image and goes through two hidden linear layers of `classifier_width` units; the original's
    4096 would hold nine parameters in ten. With width 64 the parameters of `features` have torchvision's names and shapes.
    On 32×32 the last map is a single pixel; smaller, and nothing is left.
    """

    smallest_side = 32

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_outputs: int,
        batch_norm: bool = True,
        width: int = 64,
        classifier_width: int = 512,
        activation: ActivationName = "relu",
        layer: LayerName = "linear",
        initialization: InitializationName = "default",
        checkpoint: str | None = None,
    ):
        super().__init__()
        colours, *_ = image_shape(input_shape, self.smallest_side, "vgg16")
        at_least_one(width=width, classifier_width=classifier_width)
        self.features = nn.Sequential(*_features(colours, width, batch_norm, activation, layer))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        widened = activated_width(activation, classifier_width)
        self.classifier = nn.Sequential(
            linear(layer, activated_width(activation, STAGES[-1][0] * width), classifier_width),
            activation_module(activation, classifier_width),
            linear(layer, widened, classifier_width),
            activation_module(activation, classifier_width),
        )
        self.head = linear(layer, widened, num_outputs)
        initialise(self, initialization, activation, head=self.head)
        load_checkpoint(self, checkpoint)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, C, H, W] → [B, num_outputs]."""
        return self.head(self.classifier(self.avgpool(self.features(inputs)).flatten(1)))


def _features(given: int, width: int, batch_norm: bool, activation: ActivationName, layer: LayerName) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for factor, count in STAGES:
        for _ in range(count):
            made = factor * width
            layers.append(convolution(layer, given, made, 3, padding=1))
            layers += [nn.BatchNorm2d(made)] if batch_norm else []
            layers.append(activation_module(activation, made))
            given = activated_width(activation, made)
        layers.append(nn.MaxPool2d(2))
    return layers
