"""Small surfaces that the tests of grids run on, some with a closed form."""

from __future__ import annotations

import torch
from nets import mlp
from torch import Tensor, nn

from loss_landscape import LossSurface


def batch(count: int = 32) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(count, 6, generator=draw), torch.randint(0, 3, (count,), generator=draw)


def surface_of(net: nn.Module | None = None, **options) -> LossSurface:
    if net is None:
        torch.manual_seed(0)
        net = mlp(width=12, activation=nn.ReLU)
    return LossSurface(net, nn.CrossEntropyLoss(), [batch()], **options)


def held_surface(net: nn.Module) -> LossSurface:
    """The same with a penalty on the way from here, as elastic weight consolidation has it: 0 here."""
    here = {name: p.detach().clone() for name, p in net.named_parameters()}
    return surface_of(net, regularizer=lambda net: sum((p - here[name]).square().sum() for name, p in net.named_parameters()))


def quadratic(curvatures: list[float]) -> LossSurface:
    """½ Σ cᵢ(xᵢ − 1)² as a net whose outputs are its parameters, all at 1 but the first, at 2."""

    class Point(nn.Module):
        def __init__(self):
            super().__init__()
            self.x = nn.Parameter(torch.ones(len(curvatures), dtype=torch.float64))
            self.x.data[0] = 2.0

        def forward(self, weights: Tensor) -> Tensor:
            return 0.5 * (weights * (self.x - 1).square()).sum()

    weights = torch.tensor(curvatures, dtype=torch.float64)
    return LossSurface(Point(), batches=[weights], batch_loss=lambda model, given: model(given))
