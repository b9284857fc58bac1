"""Graphs in which masks are numbers and gathers stand in memory: the same values, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from taskshift.execution.broadcasts import IN_MEMORY, prepare_broadcasts

aten = torch.ops.aten


def begun_anew(weight: Tensor, score: Tensor, ring: Tensor, taken: Tensor) -> tuple[Tensor, Tensor]:
    """Some rows taken from a ring, some columns set to 0, and a mask as large as what it masks."""
    chosen = score > 0
    rows = ring[(taken + torch.arange(1)) & 7].expand(len(weight), -1)
    found = torch.where(chosen[:, None], rows, torch.where(chosen, 0.0, weight))
    return found, torch.where(chosen, 0.0, score)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_graph_gives_the_same_values(dtype):
    rng = torch.Generator().manual_seed(0)
    weight, ring = torch.randn(5, 5, generator=rng, dtype=dtype), torch.randn(8, 5, generator=rng, dtype=dtype)
    score, taken = torch.tensor([1.0, -1.0, torch.nan, 2.0, -0.0], dtype=dtype), torch.tensor(3)
    weight[1, 1], weight[1, 2] = torch.nan, -0.0
    recorded = make_fx(begun_anew)(weight, score, ring, taken)
    expected = begun_anew(weight, score, ring, taken)
    prepare_broadcasts(recorded.graph)
    recorded.graph.lint()
    recorded.recompile()
    for one, other in zip(recorded(weight, score, ring, taken), expected, strict=True):
        assert torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0))
        assert torch.equal(one.signbit(), other.signbit())


def test_small_masks_are_compared_numbers_and_gathers_have_memory():
    recorded = make_fx(begun_anew)(torch.ones(5, 5), torch.ones(5), torch.ones(8, 5), torch.tensor(3))
    prepare_broadcasts(recorded.graph)
    masks = [node.args[0].target for node in recorded.graph.nodes if node.target is aten.where.self]
    assert masks == [aten.ne.Scalar, aten.ne.Scalar, aten.gt.Scalar]
    kept = {node.target for node in recorded.graph.nodes if node.meta.get(IN_MEMORY)}
    assert kept == {aten.index.Tensor, torch.ops.prims.convert_element_type.default}
