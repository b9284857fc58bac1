"""Poolings by maxima of rows: torch's own numbers to the last bit, and only where windows tile the image."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from loss_landscape import LossSurface, random_directions
from loss_landscape.graphs.tiled_pooling import maxima_of_windows, pool_by_maxima
from loss_landscape.surface.strategy import EvaluationStrategy

aten = torch.ops.aten
TRACED, EAGER = EvaluationStrategy("traced", 4), EvaluationStrategy("eager", 4)
COORDINATES = torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(5, 2)


def images(*shape: int) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    made[0, 0, 0, 0], made[0, 0, -1, -1], made[-1, -1, 0, 0] = math.nan, math.inf, -math.inf
    return made


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("window", [(2, 2), (3, 3), (2, 3), (1, 2), (4, 1)])
def test_maxima_have_torchs_bits(window, layout):
    taken = images(3, 5, 12, 12).to(memory_format=layout)
    maxima = maxima_of_windows(*window)
    for batch in (taken, taken.flip(0).contiguous(memory_format=layout), taken[:2].contiguous(memory_format=layout)):
        torch.testing.assert_close(maxima(batch), torch.max_pool2d(batch, window), rtol=0, atol=0, equal_nan=True)


def rewritten(pooling: nn.Module, *, side: int = 12, relu: bool = True) -> tuple[torch.fx.Graph, Tensor, Tensor]:
    """The graph of a pooling behind a ReLU, its numbers, and those from before it was rewritten."""
    taken = images(2, 3, side, side).contiguous(memory_format=torch.channels_last)
    traced = torch.fx.experimental.proxy_tensor.make_fx(lambda x: pooling(x.mul(2).relu() if relu else x.mul(2)))(taken)
    expected = traced(taken)
    for node in traced.graph.nodes:
        node.meta.setdefault("val", node.meta.get("tensor_meta"))
    traced.graph.eliminate_dead_code()
    pool_by_maxima(traced.graph)
    traced.graph.lint()
    traced.recompile()
    return traced.graph, traced(taken), expected


def targets(graph: torch.fx.Graph) -> list[object]:
    return [node.target for node in graph.nodes]


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(
    "pooling", [nn.MaxPool2d(2), nn.MaxPool2d(2, 2, 0, 1), nn.MaxPool2d((3, 2)), nn.MaxPool2d(4, ceil_mode=True)]
)
def test_windows_that_tile_the_image_are_rewritten(pooling, relu):
    graph, found, expected = rewritten(pooling, relu=relu)
    assert aten.max_pool2d_with_indices.default not in targets(graph)
    assert (aten.relu_.default in targets(graph)) == relu
    assert aten.relu.default not in targets(graph)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("pooling", "side"),
    [
        (nn.MaxPool2d(3, 2), 12),
        (nn.MaxPool2d(2, padding=1), 12),
        (nn.MaxPool2d(2, dilation=2), 12),
        (nn.MaxPool2d(5), 12),
        (nn.MaxPool2d((5, 2)), 12),
        (nn.MaxPool2d((2, 5)), 12),
        (lambda x: nn.functional.max_pool2d(x, 2, return_indices=True)[1], 12),
        (lambda x: nn.functional.max_pool2d(x[0], 2), 12),
    ],
    ids=["overlapping", "padded", "dilated", "rests", "rest of rows", "rest of columns", "indices", "one image"],
)
def test_other_poolings_stay(pooling, side):
    graph, found, expected = rewritten(pooling, side=side)
    assert aten.max_pool2d_with_indices.default in targets(graph)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_a_relu_that_others_read_stays_before_the_pooling():
    graph, found, expected = rewritten(lambda x: nn.functional.max_pool2d(x, 2) + x[..., ::2, ::2])
    assert aten.relu.default in targets(graph)
    assert aten.relu_.default not in targets(graph)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_a_convnets_cells_are_those_of_the_net_itself():
    draw = torch.Generator().manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(20, 3),
    ).double()  # fmt: skip
    batch = torch.randn(6, 1, 12, 12, generator=draw, dtype=torch.float64), torch.randint(0, 3, (6,), generator=draw)
    surface = LossSurface(net, nn.CrossEntropyLoss(), [batch])
    directions = random_directions(surface, 2, generator=draw)
    found = surface.plane(directions).evaluate(COORDINATES, TRACED)
    torch.testing.assert_close(found, surface.plane(directions).evaluate(COORDINATES, EAGER), rtol=1e-12, atol=1e-12)
    assert torch.equal(found, surface.plane(directions).evaluate(COORDINATES, TRACED))


@pytest.mark.parametrize("second", [nn.MaxPool2d(2), nn.MaxPool2d(3, stride=1, padding=1)], ids=["tiles", "overlaps"])
def test_a_pooling_right_after_a_pooling(second):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), second, nn.Flatten(), nn.LazyLinear(3))
    batch = (torch.randn(2, 3, 8, 8), torch.tensor([0, 2]))
    net(batch[0])
    surface = LossSurface(net, nn.CrossEntropyLoss(), [batch])
    plane, moves = surface.plane(random_directions(surface, 2)), torch.tensor([[0.0, 0.0], [0.5, -1.0]])
    found = plane.evaluate(moves, EvaluationStrategy("traced", 1))
    expected = surface.losses(displacements=moves @ torch.stack(list(plane.directions)))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
