"""Graphs of functions: what tracing them costs, whatever they compute."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from loss_landscape.graphs.tracing import specialized, traced


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


READS = {
    "list": lambda mask: float(sum(mask.tolist())),
    "value": lambda mask: mask.sum().item(),
    "only value": lambda mask: mask[0].new_full((), 3.0).item(),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_mask_in_a_batchs_form_may_be_looked_at(read):
    def scaled(weight: Tensor, batch: Tensor) -> Tensor:
        return (weight * batch).sum() * read(torch.ones_like(batch))

    inputs = torch.arange(4.0), torch.ones(4)
    found = specialized(scaled, inputs, 1)
    assert found.serves(inputs)
    assert torch.equal(found.graph(*inputs), scaled(*inputs))


def test_a_result_may_be_a_fill():
    inputs = torch.arange(4.0), torch.ones(4)
    found = specialized(lambda weight, batch: torch.ones_like(weight), inputs, 1)
    assert torch.equal(found.graph(*inputs), torch.ones(4))
