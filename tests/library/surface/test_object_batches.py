"""Batches share a graph only where nothing but the values of their tensors differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loss_landscape import LossSurface
from loss_landscape.nested import form_of

DRAW = torch.Generator().manual_seed(0)


class Graph:
    """Prints its shapes alone."""

    def __init__(self, x: Tensor, y: Tensor):
        self.x, self.y = x, y

    def __repr__(self) -> str:
        return f"Graph({list(self.x.shape)})"


@dataclass
class Printed:
    x: Tensor
    y: Tensor
    name: str = "data"


def pairs() -> list[tuple[Tensor, Tensor]]:
    big = [torch.randn(1500, 4, generator=DRAW) for _ in range(3)]  # printed with dots in the middle
    for x in big:
        x[:3] = x[-3:] = 1.0
    return [(x, torch.arange(1500) % 3) for x in big]


class Scaled(nn.Linear):
    def forward(self, batch: Any) -> Tensor:
        return super().forward(batch.x)


def of_object(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch), batch.y)


@pytest.mark.parametrize("kind", [Graph, Printed])
@pytest.mark.parametrize("streamed", [False, True])
def test_objects_that_print_alike_have_their_own_losses(kind, streamed, monkeypatch):
    if streamed:
        from loss_landscape.objective.batches import Batches

        monkeypatch.setattr(Batches.__init__, "__defaults__", (-1,))
    given = pairs()
    net = Scaled(4, 3)
    batches = _Fresh(kind, given) if streamed else [kind(*pair) for pair in given]
    surface = LossSurface(net, batch_loss=of_object, batches=batches, batch_weight=lambda batch: len(batch.y))
    step = torch.ones(surface.size) * torch.arange(surface.size) / 10
    found = surface.plane([step]).evaluate(torch.tensor([[0.0], [1.0]]), surface.plane([step]).strategy())
    expected = surface.losses(displacements=torch.stack([0 * step, step]))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert (surface.plane([step]).strategy().name == "eager") == streamed


class _Fresh:
    """A loader that makes its objects anew in each pass."""

    def __init__(self, kind: type, pairs: list[tuple[Tensor, Tensor]]):
        self.kind, self.pairs = kind, pairs

    def __iter__(self):
        return (self.kind(*pair) for pair in self.pairs)


def test_what_may_share_a_graph():
    x, y = torch.zeros(2, 3), torch.ones(2, 3)
    assert form_of((x, {"scale": 2.0})) == form_of((y, {"scale": 2.0}))
    for other in (
        (y, {"scale": 2}),
        (y, {"scale": 3.0}),
        [y, {"scale": 2.0}],
        (y[:1], {"scale": 2.0}),
        (y.long(), {"scale": 2.0}),
    ):
        assert form_of((x, {"scale": 2.0})) != form_of(other)
    one = Graph(x, x)
    assert form_of((x, one)) == form_of((y, one))
    assert form_of((x, one)) != form_of((y, Graph(x, x)))
