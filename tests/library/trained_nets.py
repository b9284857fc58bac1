"""Small nets trained on one task from several seeds."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def classes(count: int = 256) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, 6, generator=draw)
    return inputs, (inputs[:, 0] * inputs[:, 1] > 0).long() + (inputs[:, 2] > 0.8).long()


def trained_mlp(seed: int, inputs: Tensor, targets: Tensor, depth: int = 1, width: int = 48) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [module for given in [6] + [width] * (depth - 1) for module in (nn.Linear(given, width), nn.ReLU())]
    net = nn.Sequential(*layers, nn.Linear(width, 3))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        F.cross_entropy(net(inputs), targets).backward()
        optimizer.step()
    return net
