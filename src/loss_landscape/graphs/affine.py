"""Which operations of a graph are affine in the point's coordinates, and what they make of a direction."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten

LINEAR = {
    aten.view.default,
    aten._unsafe_view.default,
    aten.t.default,
    aten.transpose.int,
    aten.permute.default,
    aten.expand.default,
    aten.clone.default,
    aten.detach.default,
    aten.alias.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.slice.Tensor,
    aten.select.int,
    aten.split.Tensor,
    aten.neg.default,
    aten.sum.default,
    aten.sum.dim_IntList,
    aten.mean.default,
    aten.mean.dim,
    aten.avg_pool2d.default,
    operator.getitem,
}
SUMS = {aten.add.Tensor, aten.sub.Tensor}
STACKS = {aten.cat.default, aten.stack.default}
FACTORS = {  # operation → (its addend's place, its two factors' places)
    aten.mm.default: (None, 0, 1),
    aten.bmm.default: (None, 0, 1),
    aten.mul.Tensor: (None, 0, 1),
    aten.embedding.default: (None, 0, 1),
    aten.addmm.default: (0, 1, 2),
    aten.convolution.default: (2, 0, 1),
}
DIVISIONS = {aten.div.Tensor, aten.div.Scalar, aten.mul.Scalar}


def is_affine(node: fx.Node, affine: set[fx.Node]) -> bool:
    """Whether the node is affine in its inputs, of which those in `affine` are affine in the coordinates, the rest constants."""
    arguments = node.args
    if node.target in LINEAR | SUMS | STACKS:
        return True
    if node.target in DIVISIONS:
        return arguments[1] not in affine
    if node.target in FACTORS:
        addend, first, second = FACTORS[node.target]
        scaled = node.target is aten.addmm.default and bool(node.kwargs)  # beta and alpha
        return (arguments[first] in affine) + (arguments[second] in affine) <= 1 and not scaled
    return False


def linear_part(node: fx.Node, values: Mapping[fx.Node, Any], affine: set[fx.Node]) -> Any:
    """What the node makes of a direction: of `values`, its affine inputs' change, the constants that are added left out."""
    arguments = fx.node.map_arg(node.args, lambda used: values[used])
    if node.target in SUMS | STACKS:
        arguments = _without_constants(node, arguments, values, affine)
    elif node.target in FACTORS:
        addend, first, second = FACTORS[node.target]
        arguments = list(arguments)
        if addend is not None and node.args[addend] not in affine and arguments[addend] is not None:
            arguments[addend] = torch.zeros_like(arguments[addend])
        if node.args[first] not in affine and node.args[second] not in affine:  # only the addend moves
            arguments[first] = torch.zeros_like(arguments[first])
    return node.target(*arguments, **fx.node.map_arg(node.kwargs, lambda used: values[used]))


def operations_of(node: fx.Node) -> float:
    """The floating-point operations of a product or convolution, by its shapes; 0 for anything else."""
    if node.target not in (aten.mm.default, aten.bmm.default, aten.addmm.default, aten.convolution.default):
        return 0.0
    return 2.0 * node.meta["val"].numel() * inner_length(node)


def inner_length(node: fx.Node) -> int:
    """How many products are summed for one entry of a product's or a convolution's output."""
    if node.target is aten.convolution.default:
        weight = node.args[1].meta["val"]
        return weight[0].numel() if not node.args[6] else weight.numel() // weight.shape[1]
    _, first, _ = FACTORS[node.target]
    return int(node.args[first].meta["val"].shape[-1])


def _without_constants(node: fx.Node, arguments: Any, values: Mapping[fx.Node, Any], affine: set[fx.Node]) -> Any:
    def kept(original: Any, value: Any) -> Any:
        if original in affine:
            return value
        return torch.zeros_like(value) if isinstance(value, Tensor) else 0

    if node.target in STACKS:
        parts = [kept(original, value) for original, value in zip(node.args[0], arguments[0], strict=True)]
        return [parts, *arguments[1:]]
    return [kept(original, value) for original, value in zip(node.args[:2], arguments[:2], strict=True)]
