"""How the order of units goes through each operation of a traced net."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from loss_landscape.units.axes import Axes, Axis, Factor, axes_of, axis_of, fix, merge, regrouped

aten = torch.ops.aten
Known = dict[fx.Node, Any]
"""The axes of what each node gives: of a tensor, or a list of them."""

INPUT, OUTPUT, POSITIONS, GROUPED = (
    "the net's input",
    "the net's output",
    "places in an image or a sequence",
    "a grouped convolution",
)


def axes_after(node: fx.Node, known: Known) -> Any:
    """The axes of what `node` gives, those of its inputs having been merged or fixed as it demands."""
    if node.target is operator.getitem:
        return known[node.args[0]][node.args[1]]
    packet = node.target.overloadpacket
    if packet in RULES:
        return RULES[packet](node, known)
    if torch.Tag.pointwise in node.target.tags:
        return pointwise(node, known)
    return _unknown(node, known)


def shapes(node: fx.Node) -> Any:
    """The shape of what a node gives; a list of shapes where that is several tensors."""
    value = node.meta["val"]
    if isinstance(value, Tensor):
        return tuple(value.shape)
    return [tuple(part.shape) if isinstance(part, Tensor) else () for part in value]


def _unknown(node: fx.Node, known: Known) -> Any:
    """All stays in its order."""
    why = f"the operation {node.target.overloadpacket.__name__}"
    for used in _tensors(node):
        for axis in known[used]:
            fix(axis, why)
    shape = shapes(node)
    return [axes_of(one, why) for one in shape] if isinstance(shape, list) else axes_of(shape, why)


def pointwise(node: fx.Node, known: Known) -> Axes:
    found: list[Axis] = [()] * len(shapes(node))
    for used in _tensors(node):
        _merge_from_the_right(found, known[used])
    return tuple(found)


def _merge_from_the_right(found: list[Axis], axes: Axes) -> None:
    """Let `axes` be broadcast to `found`, in place."""
    for place, axis in zip(range(len(found) - 1, -1, -1), reversed(axes), strict=False):
        if found[place] and axis:
            merge(found[place], axis)
        found[place] = found[place] or axis


def same(node: fx.Node, known: Known) -> Axes:
    return known[node.args[0]]


def reshaped(node: fx.Node, known: Known) -> Axes:
    return regrouped(known[node.args[0]], shapes(node))


def transposed(node: fx.Node, known: Known) -> Axes:
    axes = list(known[node.args[0]])
    first, second = node.args[1:] or (0, -1)
    if len(axes) > 1:
        axes[first], axes[second] = axes[second], axes[first]
    return tuple(axes)


def permuted(node: fx.Node, known: Known) -> Axes:
    axes = known[node.args[0]]
    return tuple(axes[dim] for dim in node.args[1])


def expanded(node: fx.Node, known: Known) -> Axes:
    """Copies of one entry may be in any order."""
    axes, shape = known[node.args[0]], shapes(node)
    axes = ((),) * (len(shape) - len(axes)) + tuple(axes)
    return tuple(axis or axis_of(size) for axis, size in zip(axes, shape, strict=True))


def product(node: fx.Node, known: Known) -> Axes:
    """mm, bmm, and with a first summand addmm, baddbmm."""
    *summand, left, right = (known[used] for used in node.args[:3])
    merge(left[-1], right[-2])
    if len(left) == 3:
        merge(left[0], right[0])
    found = [*left[:-1], right[-1]]
    for axes in summand:
        _merge_from_the_right(found, axes)
    return tuple(found)


def convolution(node: fx.Node, known: Known) -> Axes:
    inputs, weight = known[node.args[0]], known[node.args[1]]
    transposed, groups = node.args[6], node.args[8]
    given, made = (weight[0], weight[1]) if transposed else (weight[1], weight[0])
    if groups > 1:
        for axis in (inputs[1], *weight[:2]):
            fix(axis, GROUPED)
        made = axis_of(shapes(node)[1], GROUPED)
    else:
        merge(inputs[1], given)
    if node.args[2] is not None:
        merge(known[node.args[2]][0], made)
    for axis in (*inputs[2:], *weight[2:]):
        fix(axis, POSITIONS)
    return (inputs[0], made, *axes_of(shapes(node)[2:], POSITIONS))


def batch_norm(node: fx.Node, known: Known) -> list[Axes]:
    """Each channel by itself: what it holds for a channel goes with it."""
    inputs = known[node.args[0]]
    for used in node.args[1:5]:
        if used is not None:
            merge(known[used][0], inputs[1])
    return _first_of_several(node, inputs)


def layer_norm(node: fx.Node, known: Known) -> list[Axes]:
    inputs = known[node.args[0]]
    for used in node.args[2:4]:
        if used is not None:
            _merge_from_the_right(list(inputs), known[used])
    return _first_of_several(node, inputs)


def group_norm(node: fx.Node, known: Known) -> list[Axes]:
    inputs, channels, groups = known[node.args[0]], node.args[4], node.args[6]
    if 1 < groups < channels:
        merge(inputs[1], (Factor(groups), Factor(channels // groups)))
    for used in node.args[1:3]:
        if used is not None:
            merge(known[used][0], inputs[1])
    return _first_of_several(node, inputs)


def _first_of_several(node: fx.Node, axes: Axes) -> list[Axes]:
    return [axes, *(axes_of(shape, "a norm's statistics") for shape in shapes(node)[1:])]


def reduced(node: fx.Node, known: Known) -> Axes:
    """A mean, sum or maximum over whole dimensions takes no notice of their order."""
    axes = known[node.args[0]]
    gone = dims_gone(node, len(axes))
    if len(shapes(node)) == len(axes):
        return tuple(() if dim in gone else axis for dim, axis in enumerate(axes))
    return tuple(axis for dim, axis in enumerate(axes) if dim not in gone)


def dims_gone(node: fx.Node, num_dims: int) -> set[int]:
    """The dimensions over which a node takes a mean, sum or maximum."""
    dims = next((argument for argument in node.args[1:] if isinstance(argument, list | tuple)), None) or range(num_dims)
    return {int(dim) % num_dims for dim in dims}


def over_places(node: fx.Node, known: Known) -> Any:
    """Poolings, resizings and paddings of the last dimensions."""
    axes, shape = known[node.args[0]], shapes(node)
    several, shape = isinstance(shape, list), shape[0] if isinstance(shape, list) else shape
    count = num_places(node)
    for axis in axes[-count:]:
        fix(axis, POSITIONS)
    found = (*axes[:-count], *axes_of(shape[-count:], POSITIONS))
    return [found] * len(node.meta["val"]) if several else found


def num_places(node: fx.Node) -> int:
    """How many dimensions a pooling is over: two, unless its name says otherwise."""
    return next((int(digit) for digit in "13" if f"{digit}d" in node.target.overloadpacket.__name__), 2)


def padded(node: fx.Node, known: Known) -> Axes:
    axes, pads = list(known[node.args[0]]), node.args[1]
    for number in range(len(pads) // 2):
        if pads[2 * number] or pads[2 * number + 1]:
            dim = len(axes) - 1 - number
            fix(axes[dim], POSITIONS)
            axes[dim] = axis_of(shapes(node)[dim], POSITIONS)
    return tuple(axes)


def joined(node: fx.Node, known: Known) -> Axes:
    """cat: only what is beside the joint may be reordered."""
    parts, shape = [known[used] for used in node.args[0]], shapes(node)
    dim = (node.args[1] if len(node.args) > 1 else 0) % len(shape)
    found: list[Axis] = [()] * len(shape)
    for axes in parts:
        fix(axes[dim], "a concatenation of its units")
        _merge_from_the_right(found, (*axes[:dim], (), *axes[dim + 1 :]))
    found[dim] = axis_of(shape[dim], "a concatenation of its units")
    return tuple(found)


def cut(node: fx.Node, known: Known) -> Any:
    """slice, select, split, unbind: the dimension that is cut stays in its order, unless nothing is cut off."""
    axes, shape = known[node.args[0]], shapes(node)
    dim = _cut_dim(node) % len(axes)
    parts = shape if isinstance(shape, list) else [shape]
    if parts[0] == shapes(node.args[0]):
        return [axes] if isinstance(shape, list) else axes
    fix(axes[dim], "a cut through its units")
    keeps = len(parts[0]) == len(axes)
    found = [(*axes[:dim], *[axis_of(part[dim], "a cut through its units")] * keeps, *axes[dim + 1 :]) for part in parts]
    return found if isinstance(shape, list) else found[0]


def _cut_dim(node: fx.Node) -> int:
    place = 2 if node.target.overloadpacket in (aten.split, aten.split_with_sizes) else 1
    return node.args[place] if len(node.args) > place else node.kwargs.get("dim", 0)


def embedded(node: fx.Node, known: Known) -> Axes:
    table, indices = (known[used] for used in node.args[:2])
    fix(table[0], "a table's rows")
    return (*indices, table[1])


def _tensors(node: fx.Node) -> list[fx.Node]:
    """The nodes a node reads that are single tensors."""
    found: list[fx.Node] = []
    map_arg((node.args, node.kwargs), found.append)
    return found


def _rules(*pairs: tuple[Callable[..., Any], Sequence[Any]]) -> dict[Any, Callable[..., Any]]:
    return {packet: rule for rule, packets in pairs for packet in packets}


RULES = _rules(
    (pointwise, [aten.hardswish, aten._prelu_kernel]),
    (same, [aten.clone, aten.detach, aten.alias, aten._to_copy, aten.lift_fresh_copy, aten._softmax, aten._log_softmax]),
    (same, [aten._safe_softmax]),
    (reshaped, [aten.view, aten._unsafe_view, aten.reshape, aten.unsqueeze, aten.squeeze]),
    (transposed, [aten.t, aten.transpose]),
    (permuted, [aten.permute]),
    (expanded, [aten.expand]),
    (product, [aten.mm, aten.bmm, aten.addmm, aten.baddbmm]),
    (convolution, [aten.convolution]),
    (batch_norm, [aten.native_batch_norm, aten.cudnn_batch_norm, aten._native_batch_norm_legit_no_training]),
    (layer_norm, [aten.native_layer_norm]),
    (group_norm, [aten.native_group_norm]),
    (reduced, [aten.mean, aten.sum, aten.amax, aten.amin, aten.var, aten.std, aten.logsumexp]),
    (over_places, [aten.max_pool2d_with_indices, aten.max_pool3d_with_indices, aten.avg_pool2d, aten.avg_pool3d]),
    (over_places, [aten._adaptive_avg_pool2d, aten._adaptive_avg_pool3d, aten.adaptive_max_pool2d, aten.adaptive_max_pool3d]),
    (over_places, [aten.upsample_nearest2d, aten.upsample_bilinear2d, aten.reflection_pad2d, aten.replication_pad2d]),
    (padded, [aten.constant_pad_nd]),
    (joined, [aten.cat]),
    (cut, [aten.slice, aten.select, aten.split, aten.split_with_sizes, aten.unbind]),
    (embedded, [aten.embedding]),
)
