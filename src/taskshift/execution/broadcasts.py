"""What goes into many numbers, such as a layer's weights, is put into memory first, as loops over these read it fast."""

from __future__ import annotations

import torch
from torch import fx

aten = torch.ops.aten

IN_MEMORY = "inductor_realize_to_strides"
"""What Inductor looks for in a node's `meta`: the result gets memory of its own, instead of becoming part of what uses it."""


def prepare_broadcasts(graph: fx.Graph) -> None:
    """Let Inductor carry out every gather by itself, and read masks that are smaller than what they mask as numbers.

    It would look for a row that is drawn for a new unit, and check its place, at every weight of the layer; and it packs bools
    into a vector's mask one by one.
    """
    numbers: dict[tuple[fx.Node, torch.dtype], fx.Node] = {}
    for node in list(graph.nodes):
        if node.target is aten.index.Tensor:
            node.meta[IN_MEMORY] = True
        elif node.target is aten.where.self and _is_broadcast_mask(node):
            node.args = (_as_numbers(graph, node.args[0], node.meta["val"].dtype, numbers), *node.args[1:])


def _is_broadcast_mask(node: fx.Node) -> bool:
    mask, result = node.args[0].meta["val"], node.meta["val"]
    return mask.numel() < result.numel() and result.dtype.is_floating_point


def _as_numbers(graph: fx.Graph, mask: fx.Node, dtype: torch.dtype, known: dict[tuple[fx.Node, torch.dtype], fx.Node]) -> fx.Node:
    """The same mask, as a comparison of numbers that lie in memory."""
    if (mask, dtype) not in known:
        with graph.inserting_after(mask):
            values = graph.call_function(torch.ops.prims.convert_element_type.default, (mask, dtype))
        values.meta = {"val": mask.meta["val"].to(dtype), IN_MEMORY: True}
        with graph.inserting_after(values):
            known[mask, dtype] = graph.call_function(aten.ne.Scalar, (values, 0))
        known[mask, dtype].meta = {"val": mask.meta["val"]}
    return known[mask, dtype]
