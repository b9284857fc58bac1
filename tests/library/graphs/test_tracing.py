"""Graphs of functions: what tracing them costs, whatever they compute."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from loss_landscape.graphs.tracing import traced


def product(first: Tensor, second: Tensor) -> Tensor:
    return (first @ second).relu().sum()


def writing(first: Tensor, second: Tensor) -> Tensor:
    made = first @ second
    made.add_(1.0)
    return made.relu_().sum()


@pytest.mark.parametrize("function", [product, writing])
def test_the_shapes_of_all_nodes_are_kept_in_one_fake_mode(function):
    # a mode takes a third of a millisecond to make: half of the time of a trace, where each node has one of its own
    inputs = torch.ones(3, 4), torch.ones(4, 5)
    graph = traced(function, inputs)
    modes = [node.meta["val"].fake_mode for node in graph.graph.nodes if node.op != "output"]
    assert len(modes) > 3
    assert len(set(modes)) == 1
    assert torch.equal(graph(*inputs), function(*inputs))
    assert torch._guards.TracingContext.try_get() is None
