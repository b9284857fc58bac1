"""ResNet-18, with an activation of its own at every place."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from taskshift.nets.activations import ActivationName, activated_width, activation_module
from taskshift.nets.initialisation import InitializationName, initialise
from taskshift.nets.layer_kinds import LayerName, convolution, linear
from taskshift.nets.layers import NormName, at_least_one, channel_norm, image_shape
from taskshift.nets.weights import load_checkpoint

Stem = Literal["auto", "cifar", "imagenet"]
IMAGENET_FROM = 64


class ResNet18(nn.Module):
    """The ResNet-18 of He et al. 2016, `width` channels in its first stage, twice as many in each of the next three.

    Stem `cifar`: one 3×3 convolution of stride 1; `imagenet`: 7×7 of stride 2 and 3×3 max pooling of stride 2; `auto`: imagenet
    where both sides have 64 pixels or more. With width 64 and batch norm the parameters have torchvision's names and shapes, so
    that its checkpoints of as many classes load. On 8×8 the CIFAR stem leaves the last stage a single pixel; less is padding.
    """

    smallest_side = 8

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_outputs: int,
        stem: Stem = "auto",
        width: int = 64,
        activation: ActivationName = "relu",
        norm: NormName = "batch",
        layer: LayerName = "linear",
        initialization: InitializationName = "default",
        checkpoint: str | None = None,
    ):
        super().__init__()
        colours, *sides = image_shape(input_shape, self.smallest_side, "resnet18")
        at_least_one(width=width)
        if chosen_stem(stem, min(sides)) == "imagenet":
            self.conv1 = convolution(layer, colours, width, 7, stride=2, padding=3, bias=norm == "none")
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        else:
            self.conv1 = convolution(layer, colours, width, 3, padding=1, bias=norm == "none")
            self.maxpool = nn.Identity()
        self.bn1 = one_norm(norm, width)
        self.activation = activation_module(activation, width)
        self.layer1 = stage(width, width, 1, activation, norm, layer)
        self.layer2 = stage(width, 2 * width, 2, activation, norm, layer)
        self.layer3 = stage(2 * width, 4 * width, 2, activation, norm, layer)
        self.layer4 = stage(4 * width, 8 * width, 2, activation, norm, layer)
        self.avgpool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = linear(layer, activated_width(activation, 8 * width), num_outputs)
        initialise(self, initialization, activation, head=self.fc)
        load_checkpoint(self, checkpoint)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, C, H, W] → [B, num_outputs]."""
        maps = self.maxpool(self.activation(self.bn1(self.conv1(inputs))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        return self.fc(self.flatten(self.avgpool(maps)))


class Block(nn.Module):
    """Two 3×3 convolutions around which the input goes, by a 1×1 convolution where the shape changes."""

    def __init__(self, given: int, made: int, stride: int, activation: ActivationName, norm: NormName, layer: LayerName):
        super().__init__()
        biased = norm == "none"
        self.conv1 = convolution(layer, given, made, 3, stride=stride, padding=1, bias=biased)
        self.bn1 = one_norm(norm, made)
        self.activation1 = activation_module(activation, made)
        self.conv2 = convolution(layer, activated_width(activation, made), made, 3, padding=1, bias=biased)
        self.bn2 = one_norm(norm, made)
        self.downsample = nn.Identity()
        if stride != 1 or given != made:
            self.downsample = nn.Sequential(convolution(layer, given, made, 1, stride=stride, bias=biased), one_norm(norm, made))
        self.activation2 = activation_module(activation, made)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, given, H, W] → [B, made, H/stride, W/stride]."""
        maps = self.activation1(self.bn1(self.conv1(inputs)))
        return self.activation2(self.bn2(self.conv2(maps)) + self.downsample(inputs))


def stage(given: int, made: int, stride: int, activation: ActivationName, norm: NormName, layer: LayerName) -> nn.Sequential:
    """Two blocks, the first of which changes the number of channels and the size; both counted before the activation."""
    before, between = activated_width(activation, given), activated_width(activation, made)
    return nn.Sequential(Block(before, made, stride, activation, norm, layer), Block(between, made, 1, activation, norm, layer))


def one_norm(norm: NormName, channels: int) -> nn.Module:
    """The norm, or an identity in its place, so that a state dict's names stay torchvision's."""
    return next(iter(channel_norm(norm, channels)), nn.Identity())


def chosen_stem(stem: Stem, side: int) -> Literal["cifar", "imagenet"]:
    """The stem for images whose shorter side has `side` pixels."""
    if stem not in ("auto", "cifar", "imagenet"):
        raise ValueError(f"stem={stem!r} is not known; choose one of auto, cifar, imagenet")
    if stem != "auto":
        return stem
    return "imagenet" if side >= IMAGENET_FROM else "cifar"
