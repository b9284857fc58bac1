"""Tensors filled with one number, of which a graph takes only the form from another tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

FILLS = {aten.zeros_like.default: 0, aten.ones_like.default: 1, aten.new_zeros.default: 0, aten.new_ones.default: 1}
FILLS_WITH = {aten.full_like.default: 1, aten.new_full.default: 2, aten.fill.Scalar: 1}
"""Operation → the place of the number among its arguments."""


def take_out_forms(graph: fx.GraphModule) -> None:
    """Make constants of `zeros_like(x)` and its kind, so that what is computed of them alone hangs on no input.

    Masks are made so: zeros in an activation's form, into whose slices numbers are written. As a function of the activation,
    such a mask would be made anew for each value of the inputs. The nodes stay, without users: they may be what is asked for.
    """
    for node in list(graph.graph.nodes):
        number = _number(node)
        if number is None:
            continue
        form = node.meta["val"]
        with graph.graph.inserting_before(node):
            filled = graph.graph.call_function(
                aten.full.default, (list(form.shape), number), {"dtype": form.dtype, "device": form.device}
            )
        filled.meta = dict(node.meta)
        node.replace_all_uses_with(filled)


def _number(node: fx.Node) -> Any:
    """What a node fills a tensor with; None where it does something else, or the number is computed."""
    if node.target in FILLS:
        return FILLS[node.target]
    number = node.args[FILLS_WITH[node.target]] if node.target in FILLS_WITH else None
    return None if isinstance(number, fx.Node) else number
