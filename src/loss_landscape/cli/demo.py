"""A small training from which every part of the Writer can be tried."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from loss_landscape.writer.writer import LossLandscapeWriter

EPOCHS = 30


def demo_landscape(folder: Path, *, grid_size: int = 41) -> None:
    """Train a small net on two moons; write its path, a plane of its path, a random line, and its curvature into `folder`."""
    draw = torch.Generator().manual_seed(0)
    inputs, targets = _moons(400, draw)
    batches, loss_fn = [(inputs, targets)], nn.CrossEntropyLoss()
    with torch.random.fork_rng(), LossLandscapeWriter(folder) as writer:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 2))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
        for epoch in range(EPOCHS):
            loss = loss_fn(net(inputs), targets)
            writer.record_checkpoint(net, epoch, train_loss=loss.item(), learning_rate=0.5)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        writer.record_checkpoint(net, EPOCHS, train_loss=loss_fn(net(inputs), targets).item(), learning_rate=0.5)
        writer.sample_landscape(net, batches, loss_fn, mode="1d")
        writer.sample_landscape(net, batches, loss_fn, direction_mode="pca", grid_size=grid_size)
        writer.build_trajectory(net, batches, loss_fn)
        writer.compute_hessian_metrics(net, batches, loss_fn, epoch=EPOCHS)


def _moons(count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two half circles that reach into each other."""
    angles = torch.pi * torch.rand(count, generator=draw)
    labels = torch.arange(count) % 2
    upper = torch.stack([angles.cos(), angles.sin()], dim=1)
    lower = torch.stack([1 - angles.cos(), 0.5 - angles.sin()], dim=1)
    noise = 0.15 * torch.randn(count, 2, generator=draw)
    return torch.where(labels[:, None] == 0, upper, lower) + noise, labels
