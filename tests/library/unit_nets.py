"""Small nets whose units may be permuted, each with what its tests must know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class UnitNet:
    """A net in float64, one batch for it, and the sizes of the groups of units it has."""

    net: nn.Module
    inputs: Tensor
    sizes: list[int]
    fixed: dict[str, str] = field(default_factory=dict)  # beside the last layer's bias


OUTPUT = "the net's output"


class Residual(nn.Module):
    """A stem, a block of two convolutions around which its input goes, one where it goes through a third, a norm of each kind."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.BatchNorm2d):
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(2, 4, 3, padding=1), norm(4)
        self.conv1, self.norm1, self.conv2, self.norm2 = (
            nn.Conv2d(4, 6, 3, padding=1),
            norm(6),
            nn.Conv2d(6, 4, 3, padding=1),
            norm(4),
        )
        self.conv3, self.norm3, self.way = nn.Conv2d(4, 8, 3, stride=2), norm(8), nn.Conv2d(4, 8, 3, stride=2, bias=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm0(self.stem(x)))
        x = F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))
        x = F.gelu(self.way(x) + self.norm3(self.conv3(x)))
        return self.head(x.mean(dim=(2, 3)))


class Attention(nn.Module):
    """A table, a transformer's layer, a head on the mean over the places."""

    def __init__(self):
        super().__init__()
        self.table, self.places = nn.Embedding(7, 8), nn.Parameter(torch.randn(5, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, activation="gelu")
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.table(x) + self.places).mean(dim=1))


class Tied(nn.Module):
    """Two layers with one weight between three activations: all their units are one group, counted twice by that weight."""

    def __init__(self):
        super().__init__()
        self.first, self.one, self.other = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.other.weight = self.one.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.other(torch.tanh(self.one(torch.tanh(self.first(x)))))))


class Joined(nn.Module):
    """Two branches side by side: their units are looked at by their place."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.last = nn.Linear(4, 3), nn.Linear(4, 5), nn.Linear(8, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.last(F.relu(torch.cat([self.left(x), self.right(x)], dim=1)))))


class Gated(nn.Module):
    """One layer's outputs cut in two, half of them the gates of the others."""

    def __init__(self):
        super().__init__()
        self.both, self.head = nn.Linear(4, 12), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.both(x).chunk(2, dim=-1)
        return self.head(value * torch.sigmoid(gate))


class Buffered(nn.Module):
    """Buffers along the units: one in the state dict, one that is not."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 3)
        self.register_buffer("scale", torch.rand(5))
        self.register_buffer("shift", torch.rand(6), persistent=False)
        self.unused = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.second(F.relu(self.first(x) * self.scale)) + self.shift))


def flattened() -> nn.Sequential:
    """Channels that become blocks of a linear layer's inputs, with norms, poolings and an activation that has parameters."""
    maps = [
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.PReLU(4),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 2),
        nn.GroupNorm(1, 5),
        nn.SiLU(),
    ]
    return nn.Sequential(
        *maps, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 7), nn.LayerNorm(7), nn.ELU(), nn.Linear(7, 3)
    )


def depthwise() -> nn.Sequential:
    layers = [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Conv2d(4, 6, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))


def upwards() -> nn.Sequential:
    """A transposed convolution and one over a sequence; the maps come out, so that only what is between is free."""
    return nn.Sequential(nn.ConvTranspose1d(2, 4, 3), nn.Tanh(), nn.Conv1d(4, 6, 2, padding=1), nn.Softplus(), nn.Conv1d(6, 2, 1))


def images(count: int = 5, side: int = 8) -> Tensor:
    return torch.randn(count, 2, side, side)


GROUPED = {f"{layer}.{part}": "a grouped convolution" for layer in (0, 2) for part in ("weight", "bias")}
JOINED = {f"{layer}.{part}": "a concatenation of its units" for layer in ("left", "right") for part in ("weight", "bias")}
CUT = {f"both.{part}": "a cut through its units" for part in ("weight", "bias")}

MAKERS: dict[str, Callable[[], UnitNet]] = {
    "mlp": lambda: UnitNet(
        nn.Sequential(nn.Linear(4, 14), nn.ReLU(), nn.Linear(14, 12), nn.Tanh(), nn.Linear(12, 3)), torch.randn(9, 4), [14, 12]
    ),
    "linear": lambda: UnitNet(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), torch.randn(2, 7, 4), [5]),
    "flattened": lambda: UnitNet(flattened(), images(), [4, 5, 7]),
    "residual-batch": lambda: UnitNet(Residual(), images(), [4, 6, 8]),
    "residual-group": lambda: UnitNet(Residual(lambda width: nn.GroupNorm(2, width)), images(), [2, 2, 2, 3, 2, 4]),
    "residual-none": lambda: UnitNet(Residual(lambda width: nn.Identity()), images(), [4, 6, 8]),
    "attention": lambda: UnitNet(Attention(), torch.randint(0, 7, (3, 5)), [8, 2, 4, 12]),
    "tied": lambda: UnitNet(Tied(), torch.randn(9, 4), [6]),
    "upwards": lambda: UnitNet(upwards(), torch.randn(3, 2, 7), [4, 6]),
    "depthwise": lambda: UnitNet(depthwise(), images(), [6], GROUPED),
    "joined": lambda: UnitNet(Joined(), torch.randn(9, 4), [6], JOINED),
    "gated": lambda: UnitNet(Gated(), torch.randn(9, 4), [], {**CUT, "head.weight": "a cut through its units"}),
    "buffered": lambda: UnitNet(
        Buffered(),
        torch.randn(9, 4),
        [5],
        {**dict.fromkeys(["second.bias", "shift", "head.weight"], "not in the state dict"), "unused": "not used"},
    ),
}


def made(name: str, seed: int = 0) -> UnitNet:
    """The net called `name` with every parameter and buffer drawn anew, in eval mode."""
    torch.manual_seed(seed)
    found = MAKERS[name]()
    net = found.net.double().eval()
    with torch.no_grad():
        for tensor in [*net.parameters(), *net.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5 if tensor.dim() < 2 else torch.randn_like(tensor) * 0.5)
    inputs = found.inputs.double() if found.inputs.is_floating_point() else found.inputs
    return UnitNet(net, inputs, found.sizes, found.fixed)
