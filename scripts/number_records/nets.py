"""Twelve small nets with their data, each trained for some steps: between them every kind of layer and every strategy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from loss_landscape import HessianOperator, LossSurface

Batches = list[tuple[Tensor, Tensor]]
STEPS = 12


@dataclass(frozen=True)
class Case:
    """A net on its data, with its trajectory and with a second net trained from other weights."""

    model: nn.Module
    other: nn.Module
    checkpoints: list[dict[str, Tensor]]  # the net's own last
    loss_fn: nn.Module
    batches: Batches
    dtype: torch.dtype | None = None  # of the surface; None: the net's own

    @property
    def inputs(self) -> Tensor:
        """A batch of inputs."""
        return self.batches[0][0]

    @property
    def has_batch_norm(self) -> bool:
        """Whether the surface's batch_norm matters."""
        return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.model.modules())

    def surface(self, **how: Any) -> LossSurface:
        """The net's loss surface."""
        return LossSurface(self.model, self.loss_fn, self.batches, **{"dtype": self.dtype, **how})

    def hessian(self, surface: LossSurface, **how: Any) -> HessianOperator:
        """The surface's Hessian by the rule's method, or, where torch's second derivative is wrong, by differences."""
        wrong = any(nn.utils.parametrize.is_parametrized(module) for module in self.model.modules())
        return HessianOperator(surface, method="finite_differences" if wrong else "auto", **how)

    def like_other_nets(self) -> LossSurface:
        """A surface to hold other nets' parameters against, whose batch norms' statistics follow them."""
        return self.surface(batch_norm="recompute" if self.has_batch_norm else "running")


class Residual(nn.Module):
    """A block with a skip connection and group norms."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norms = nn.ModuleList([nn.GroupNorm(2, 8), nn.GroupNorm(4, 8)])
        self.head = nn.Linear(8, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        stem = torch.relu(self.norms[0](self.first(inputs)))
        maps = torch.relu(stem + self.norms[1](self.second(stem)))
        return self.head(maps.mean(dim=(2, 3)))


class DepthwiseConcat(nn.Module):
    """A depthwise separable convolution, concatenated with what it read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.depthwise, self.pointwise = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(10, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        stem = nn.functional.silu(self.stem(inputs))
        maps = torch.cat([stem, nn.functional.gelu(self.pointwise(self.depthwise(stem)))], dim=1)
        return self.head(maps.amax(dim=(2, 3)))


class Encoder(nn.Module):
    """A transformer's encoder layer over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 12)
        self.norms = nn.ModuleList([nn.LayerNorm(12), nn.LayerNorm(12)])
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.wide, self.narrow, self.head = nn.Linear(12, 24), nn.Linear(24, 12), nn.Linear(12, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.embed(inputs.reshape(-1, 8, 8))
        normed = self.norms[0](tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        tokens = tokens + self.narrow(nn.functional.gelu(self.wide(self.norms[1](tokens))))
        return self.head(tokens.mean(dim=1))


class Recurrent(nn.Module):
    """A GRU over an image, two rows at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.GRU(16, 10, batch_first=True), nn.Linear(10, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.cells(inputs.reshape(-1, 4, 16))[0][:, -1])


class Bags(nn.Module):
    """Regression of several values on bags of words."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden, self.head = nn.EmbeddingBag(40, 8, mode="mean"), nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.tanh(self.hidden(self.words(inputs))))


class Branching(nn.Module):
    """A net that looks at a value, so that it is no fixed graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 12), nn.Linear(12, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(inputs.flatten(1)))
        return self.second(hidden if hidden.abs().amax() > 0.5 else 2 * hidden)


def mlp(activation: Callable[[], nn.Module], *widths: int) -> nn.Sequential:
    """A dense net on images."""
    hidden = [layer for pair in zip(widths, widths[1:], strict=False) for layer in (nn.Linear(*pair), activation())]
    return nn.Sequential(nn.Flatten(), *hidden[:-1])


def weight_normed() -> nn.Sequential:
    """A dense net, each of whose hidden units' weights are a length and a direction."""
    normed = nn.utils.parametrizations.weight_norm
    return nn.Sequential(nn.Flatten(), normed(nn.Linear(64, 14)), nn.Softplus(), normed(nn.Linear(14, 10)))


def convnet() -> nn.Sequential:
    """Two convolutions and a dense layer."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 2), nn.Tanh(), nn.Flatten(), nn.Linear(32, 10))
    )


def batch_normed() -> nn.Sequential:
    """Two convolutions with batch norms."""
    first = (nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(2))
    second = (nn.Conv2d(6, 6, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 10))
    return nn.Sequential(*first, *second)


def images(*sizes: int) -> Batches:
    """Noisy prototypes of ten classes, 8×8, in batches of these sizes."""
    draw = torch.Generator().manual_seed(3)
    prototypes = torch.randn(10, 1, 8, 8, generator=draw)
    targets = [torch.randint(10, (size,), generator=draw) for size in sizes]
    return [(prototypes[t] + 0.7 * torch.randn(len(t), 1, 8, 8, generator=draw), t) for t in targets]


def curves() -> Batches:
    """Images with three values each, which are smooth functions of them."""
    draw = torch.Generator().manual_seed(5)
    readout = torch.randn(64, 3, generator=draw) / 8
    return [(inputs, torch.sin(inputs.flatten(1) @ readout)) for inputs, _ in images(32, 20)]


def bags() -> Batches:
    """Bags of six words, and three values each."""
    draw = torch.Generator().manual_seed(4)
    words = [torch.randint(40, (size, 6), generator=draw) for size in (24, 24, 11)]
    return [(w, torch.randn(len(w), 3, generator=draw) + (w % 3).float().mean(dim=1, keepdim=True)) for w in words]


MAKERS: dict[str, Callable[[], nn.Module]] = {
    "mlp_relu": lambda: mlp(nn.ReLU, 64, 20, 16, 10),
    "mlp_tanh_float64": lambda: mlp(nn.Tanh, 64, 12, 12, 10),
    "convnet": convnet,
    "batch_norm": batch_normed,
    "residual_group_norm": Residual,
    "depthwise_concat": DepthwiseConcat,
    "encoder": Encoder,
    "gru": Recurrent,
    "weight_norm": weight_normed,
    "bags_in_float64": Bags,
    "branching": Branching,
    "regression": lambda: mlp(nn.GELU, 64, 12, 3),
}
DATA: dict[str, Callable[[], Batches]] = {
    "mlp_tanh_float64": lambda: images(32, 32, 13),
    "bags_in_float64": bags,
    "regression": curves,
}


def case(name: str) -> Case:
    """The net of this name: one holds float64 itself, one is only evaluated in it, and one has batches of different sizes."""
    batches = DATA.get(name, lambda: images(32, 32))()
    loss_fn = nn.MSELoss() if batches[0][1].is_floating_point() else nn.CrossEntropyLoss()
    nets = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        nets.append(MAKERS[name]())
    if name == "mlp_tanh_float64":
        nets, batches = [net.double() for net in nets], [(inputs.double(), targets) for inputs, targets in batches]
    checkpoints, _ = (trained(net, loss_fn, batches) for net in nets)
    dtype = torch.float64 if name == "bags_in_float64" else None
    return Case(*(net.eval() for net in nets), checkpoints, loss_fn, batches, dtype)


def trained(net: nn.Module, loss_fn: nn.Module, batches: Batches) -> list[dict[str, Tensor]]:
    """The states of a net along some steps of SGD, the last as it is left."""
    optimizer, states = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), []
    for step in range(STEPS):
        states.append(copy.deepcopy(net.state_dict()))
        inputs, targets = batches[step % len(batches)]
        optimizer.zero_grad()
        loss_fn(net(inputs), targets).backward()
        optimizer.step()
    return [*states, copy.deepcopy(net.state_dict())]


def with_adam(given: Case) -> tuple[nn.Module, torch.optim.Adam]:
    """A copy of the net after three steps of Adam, and the optimizer."""
    net = copy.deepcopy(given.model)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for inputs, targets in given.batches[:1] * 3:
        optimizer.zero_grad()
        given.loss_fn(net(inputs), targets).backward()
        optimizer.step()
    return net, optimizer
