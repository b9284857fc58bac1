"""The nets that are measured, trained for a while on images that a random teacher labelled."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn

from loss_landscape import LossSurface

NUM_TRAINING_EXAMPLES, NUM_CLASSES = 2000, 10
WRONG_LABELS = 0.1  # so that no net gets to a loss of 0


def mlp(activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """784-100-100-10."""
    hidden = [nn.Linear(784, 100), activation(), nn.Linear(100, 100), activation()]
    return nn.Sequential(*hidden, nn.Linear(100, NUM_CLASSES))


def smooth_mlp() -> nn.Sequential:
    """784-100-100-10 with tanh."""
    return mlp(nn.Tanh)


def convnet() -> nn.Sequential:
    """Two 3×3 convolutions of 16 and 32 channels, each pooled to half its side, and a linear layer, for 1×28×28."""
    first = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(32 * 7 * 7, NUM_CLASSES))


def resnet18() -> nn.Module:
    """torchvision's ResNet-18 with the stem for 3×32×32: a 3×3 convolution of stride 1 and no pooling."""
    from torchvision.models import resnet18 as build

    net = build(num_classes=NUM_CLASSES)
    net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return net


@dataclass(frozen=True)
class Kind:
    """A net with the shape of its inputs."""

    name: str
    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    image_shape: tuple[int, int, int]


MLP = Kind("MLP 784-100-100-10", mlp, (784,), (1, 28, 28))
SMOOTH_MLP = Kind("MLP 784-100-100-10, tanh", smooth_mlp, (784,), (1, 28, 28))
CONVNET = Kind("convnet on 1×28×28", convnet, (1, 28, 28), (1, 28, 28))
RESNET18 = Kind("ResNet-18, CIFAR stem", resnet18, (3, 32, 32), (3, 32, 32))


@dataclass(frozen=True, eq=False)
class Problem:
    """A net and the batch that its loss is taken on."""

    net: nn.Module
    inputs: Tensor
    targets: Tensor

    @property
    def batch(self) -> tuple[Tensor, Tensor]:
        """(inputs, targets)."""
        return self.inputs, self.targets

    def surface(self) -> LossSurface:
        """The mean cross entropy over the batch."""
        return LossSurface(self.net, nn.CrossEntropyLoss(), [self.batch])


@cache
def trained(kind: Kind, batch_size: int, num_steps: int, device: torch.device, seed: int = 0) -> Problem:
    """A net after `num_steps` of training, with the first `batch_size` training examples as its batch."""
    draw = torch.Generator().manual_seed(seed)
    inputs, targets = examples(kind, draw)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = kind.build().to(device)
    inputs, targets = inputs.to(device), targets.to(device)
    train(net, inputs, targets, num_steps, draw)
    return Problem(net, inputs[:batch_size], targets[:batch_size])


def next_task(problem: Problem, kind: Kind, num_steps: int, seed: int) -> Problem:
    """The same net after training on other images of another teacher, with a batch of these."""
    draw = torch.Generator().manual_seed(1000 + seed)
    inputs, targets = (part.to(problem.inputs.device) for part in examples(kind, draw))
    net = copy.deepcopy(problem.net)
    train(net, inputs, targets, num_steps, draw)
    size = len(problem.inputs)
    return replace(problem, net=net, inputs=inputs[:size], targets=targets[:size])


def examples(kind: Kind, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Smooth random images with noise, each channel of variance about 1, and what a random two-layer net makes of them."""
    channels, side, _ = kind.image_shape
    coarse = torch.randn(NUM_TRAINING_EXAMPLES, channels, 7, 7, generator=draw)
    smooth = nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    images = 1.5 * smooth + 0.3 * torch.randn(smooth.shape, generator=draw)
    hidden = torch.tanh(coarse.flatten(1) @ torch.randn(channels * 49, 64, generator=draw) / 7)
    scores = hidden @ torch.randn(64, NUM_CLASSES, generator=draw)
    labels = (scores - scores.mean(dim=0)).argmax(dim=1)
    wrong = torch.rand(len(labels), generator=draw) < WRONG_LABELS
    labels[wrong] = torch.randint(0, NUM_CLASSES, (int(wrong.sum()),), generator=draw)
    return images.reshape(-1, *kind.input_shape), labels


def train(net: nn.Module, inputs: Tensor, targets: Tensor, num_steps: int, draw: torch.Generator, batch_size: int = 64) -> None:
    """Adam on random batches, then eval mode."""
    optimizer, criterion = torch.optim.Adam(net.parameters(), lr=1e-3), nn.CrossEntropyLoss()
    net.train()
    for _ in range(num_steps):
        chosen = torch.randint(0, len(inputs), (batch_size,), generator=draw).to(inputs.device)
        optimizer.zero_grad()
        criterion(net(inputs[chosen]), targets[chosen]).backward()
        optimizer.step()
    net.zero_grad(set_to_none=True)
    net.eval()
