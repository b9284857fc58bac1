"""Small matrix products as sums of products, which a compiler fuses with what is around them."""

from __future__ import annotations

import torch
from torch import fx

aten = torch.ops.aten

SMALL = 4096
"""Multiplications up to which a product, of a stack's each member's, is cheaper fused than called."""


def spread_small_products(graph: fx.Graph) -> None:
    """Rewrite products of few multiplications, and outer products of any size: those need never be written to memory."""
    for node in list(graph.nodes):
        if node.target in (aten.mm.default, aten.bmm.default):
            bias, (one, other) = None, node.args
        elif node.target is aten.addmm.default and not node.kwargs:
            bias, one, other = node.args
        else:
            continue
        (*_, rows, inner), columns = _shape(one), _shape(other)[-1]
        if inner == 1 or rows * inner * columns <= SMALL:
            with graph.inserting_before(node):
                made = _spread(graph, one, other, inner)
                made = made if bias is None else _call(graph, aten.add.Tensor, bias, made)
            node.replace_all_uses_with(made)
            graph.erase_node(node)


def _spread(graph: fx.Graph, one: fx.Node, other: fx.Node, inner: int) -> fx.Node:
    """[…, M, K] @ […, K, N], summed over K in one go."""
    if inner == 1:
        return _call(graph, aten.mul.Tensor, one, other)
    dims = len(_shape(one))
    wide = _call(graph, aten.unsqueeze.default, one, dims), _call(graph, aten.unsqueeze.default, other, dims - 2)
    return _call(graph, aten.sum.dim_IntList, _call(graph, aten.mul.Tensor, *wide), [dims - 1])


def _call(graph: fx.Graph, operation: torch._ops.OpOverload, *arguments: object) -> fx.Node:
    node = graph.call_function(operation, arguments)
    values = fx.node.map_arg(arguments, lambda used: used.meta["val"])
    node.meta["val"] = operation(*values)
    return node


def _shape(node: fx.Node) -> torch.Size:
    return node.meta["val"].shape
