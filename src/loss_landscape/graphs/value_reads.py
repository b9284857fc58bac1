"""What a traced function looked at of tensors' values: what its graph, which holds operations alone, hangs on."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import get_proxy_mode, has_proxy_slot
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten

LEAVES_TORCH = {torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__, torch.Tensor.__dlpack__}
SPLITS_AT = {torch.tensor_split, torch.Tensor.tensor_split}
"""Functions that read where to split, a tensor, without an operation that tells so."""
READS_LENGTHS = {aten._pack_padded_sequence.default, aten._pad_packed_sequence.default, aten._ctc_loss.Tensor}
"""Operations whose integers decide what they do, and no other of their inputs; torch's tags do not say so."""


class UntraceableError(RuntimeError):
    """A function that is no fixed graph of its inputs: it branches on their values, or draws random numbers."""


class LeavesTorch(TorchFunctionMode):
    """A context for a function that make_fx traces; copies of the tensors that it hands to Python or NumPy are in `copies`."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[Tensor] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        mode = get_proxy_mode()
        if mode is not None:
            leaving = _leaving(function, args, kwargs or {})
            self.copies += [tensor.clone() for tensor in leaving if has_proxy_slot(tensor, mode.tracer)]
        return function(*args, **(kwargs or {}))


def _leaving(function: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors among a function's arguments whose values it takes out of torch."""
    if function in LEAVES_TORCH:
        return [args[0]]
    given = [*args[1:], *(value for name, value in kwargs.items() if name != "input")] if function in SPLITS_AT else []
    return [value for value in given if isinstance(value, Tensor)]


def looked_at(graph: fx.Graph, handed_out: Sequence[fx.Node], num_varying: int) -> list[fx.Node]:
    """The nodes whose values were looked at while the graph was traced: those handed out, those that decide about shapes.

    Raises `UntraceableError` where one of them depends on the first `num_varying` inputs: the graph would hold their values of
    today.
    """
    varying = set([node for node in graph.nodes if node.op == "placeholder"][:num_varying])
    found = dict.fromkeys(handed_out)
    for node in graph.nodes:
        if node.op == "output":
            continue
        for used in _read_by(node):
            if used in varying:
                raise UntraceableError(_why(node))
            found[used] = None
        if not varying.isdisjoint(_deciding(node)):
            varying.add(node)
    if not varying.isdisjoint(handed_out):
        raise UntraceableError("a tensor that depends on the inputs goes through NumPy or a list")
    return [node for node in graph.nodes if node in found]


def _read_by(node: fx.Node) -> list[fx.Node]:
    """The inputs of a node whose values, not only their shapes, decide about what the graph is."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    if node.target in READS_LENGTHS:
        return [used for used in node.all_input_nodes if not used.meta["val"].is_floating_point()]
    if node.target is aten.index.Tensor:
        indices = node.args[1]
        assert isinstance(indices, list | tuple)  # by the operation's schema
        return [index for index in indices if isinstance(index, fx.Node) and index.meta["val"].dtype in (torch.bool, torch.uint8)]
    tags = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
    return [] if tags.isdisjoint(node.target.tags) else node.all_input_nodes


def _deciding(node: fx.Node) -> list[fx.Node]:
    """The nodes that a node's values hang on: a packed sequence's batch sizes on the lengths, not on what is packed."""
    if node.target is operator.getitem and node.args[1] == 1 and node.args[0].target is aten._pack_padded_sequence.default:
        lengths: Any = node.args[0].args[1]
        return [lengths]
    return node.all_input_nodes


def _why(node: fx.Node) -> str:
    if torch.Tag.data_dependent_output in node.target.tags:
        return f"{node.target} takes a value out of a tensor that depends on the inputs"
    return f"the shape that {node.target} gives depends on values"
