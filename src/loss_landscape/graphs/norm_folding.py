"""A batch norm that uses running statistics is part of the convolution before it.

γ (w∗x + b − μ)/σ + β = (γ/σ w)∗x + γ/σ (b − μ) + β: the activation is not gone through once more. It pays where the weight is
smaller than what it makes.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten


def with_folded_norms(graph: fx.GraphModule) -> fx.GraphModule:
    """The graph with such batch norms in their convolutions' weights."""
    for node in list(graph.graph.nodes):
        if _is_normalised_convolution(node):
            _fold(graph.graph, node)
    graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()
    return graph


def _is_normalised_convolution(node: fx.Node) -> bool:
    """Whether `node` is the output of a batch norm in eval mode of a convolution that nothing else reads."""
    if node.target is not operator.getitem or node.args[1] != 0 or node.args[0].target is not aten.native_batch_norm.default:
        return False
    norm = node.args[0]
    source, scale, shift, mean, variance, training = norm.args[:6]
    if training or None in (scale, shift, mean, variance) or len(norm.users) > 1 or len(source.users) > 1:
        return False
    is_plain = source.target is aten.convolution.default and not source.args[6]
    return is_plain and source.args[1].meta["val"].numel() < source.meta["val"].numel()


def _fold(graph: fx.Graph, node: fx.Node) -> None:
    norm = node.args[0]
    convolution, scale, shift, mean, variance = norm.args[:5]
    epsilon = norm.args[7]
    inputs, weight, bias, *rest = convolution.args
    like, channels = weight.meta["val"], scale.meta["val"]
    shape = [len(channels)] + [1] * (like.dim() - 1)

    def call(target: Any, *arguments: Any, value: Any = channels) -> fx.Node:
        made = graph.call_function(target, arguments)
        made.meta["val"] = value
        return made

    with graph.inserting_before(norm):
        factor = call(aten.mul.Tensor, scale, call(aten.rsqrt.default, call(aten.add.Scalar, variance, epsilon)))
        column = call(aten.view.default, factor, shape, value=channels.view(shape))
        scaled = call(aten.mul.Tensor, weight, column, value=like)
        centre = mean if bias is None else call(aten.sub.Tensor, mean, bias)
        moved = call(aten.sub.Tensor, shift, call(aten.mul.Tensor, centre, factor))
        folded = call(aten.convolution.default, inputs, scaled, moved, *rest, value=convolution.meta["val"])
    node.replace_all_uses_with(folded)
