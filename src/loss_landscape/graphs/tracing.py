"""Functions of tensors as graphs of aten operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import get_proxy_mode, has_proxy_slot, make_fx
from torch.overrides import TorchFunctionMode

LEAVES_TORCH = {torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__, torch.Tensor.__dlpack__}


class UntraceableError(RuntimeError):
    """A function that is no fixed graph of its inputs: it branches on their values, or draws random numbers."""


def traced(function: Callable[..., Any], inputs: Sequence[Tensor], num_varying: int | None = None) -> fx.GraphModule:
    """`function(*inputs)` as a graph without in-place operations, one placeholder for each input.

    It is to be run with other values of the first `num_varying` inputs, of all unless given: where a shape depends on these, as
    behind a selection, or they go through NumPy or a list, the graph would hold today's.

    What the function writes into its inputs is gone afterwards: neither the run nor the graph changes them. Tensors that it
    closes over become constants. Raises `UntraceableError` where the result would not be the function.
    """
    inputs = [tensor.detach().clone() for tensor in inputs]
    try:
        with _NothingBakedIn():
            graph = make_fx(function)(*inputs)
        if any(map(_writes, graph.graph.nodes)):
            graph = _functional(graph, inputs)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise UntraceableError(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__) from error
    for node in graph.graph.nodes:
        if _writes(node) or _is_random(node):
            raise UntraceableError(f"{node.target} writes in place or draws random numbers")
    graph.graph.eliminate_dead_code()
    _require_fixed_shapes(graph, num_varying)
    graph.recompile()
    return graph


class _NothingBakedIn(TorchFunctionMode):
    """A context in which values that are traced are not handed to Python or NumPy, which no graph can follow."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        mode = get_proxy_mode() if function in LEAVES_TORCH else None
        if mode is not None and has_proxy_slot(args[0], mode.tracer):
            raise UntraceableError("a tensor that depends on the inputs goes through NumPy or a list")
        return function(*args, **(kwargs or {}))


def _require_fixed_shapes(graph: fx.GraphModule, num_varying: int | None) -> None:
    varying: set[fx.Node] = set(placeholders(graph)[:num_varying])
    for node in graph.graph.nodes:
        if varying.isdisjoint(node.all_input_nodes):
            continue
        if not varying.isdisjoint(_selecting(node)):
            raise UntraceableError(f"the shape that {node.target} gives depends on values")
        varying.add(node)


def _selecting(node: fx.Node) -> list[fx.Node]:
    """The inputs of a node whose values, not only their shapes, decide about the shape of what it gives."""
    if not isinstance(node.target, torch._ops.OpOverload) or torch.Tag.dynamic_output_shape not in node.target.tags:
        return []
    if node.target is not torch.ops.aten.index.Tensor:
        return node.all_input_nodes
    indices = node.args[1]
    assert isinstance(indices, list | tuple)  # by the operation's schema
    return [index for index in indices if isinstance(index, fx.Node) and index.meta["val"].dtype in (torch.bool, torch.uint8)]


def _functional(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> fx.GraphModule:
    """The graph without in-place operations; its constants are inputs meanwhile, so that writes to copies of them go too."""
    attributes = {node.target: constant(graph, node) for node in graph.graph.nodes if node.op == "get_attr"}
    tensors = {name: value for name, value in attributes.items() if isinstance(value, Tensor)}

    def run(*values: Tensor) -> Any:
        return _Lifted(graph, dict(zip(tensors, values[len(inputs) :], strict=True))).run(*values[: len(inputs)])

    lifted = make_fx(functionalize(run, remove="mutations"))(*inputs, *tensors.values())
    for holder, value in zip(placeholders(lifted)[len(inputs) :], tensors.values(), strict=True):
        lifted.register_buffer(f"constant_{holder.name}", value)
        with lifted.graph.inserting_before(holder):
            attribute = lifted.graph.get_attr(f"constant_{holder.name}")
        attribute.meta = dict(holder.meta)
        holder.replace_all_uses_with(attribute)
        lifted.graph.erase_node(holder)
    _leave_inputs_alone(lifted)
    return lifted


def _leave_inputs_alone(graph: fx.GraphModule) -> None:
    """Take out the copies at the end, by which a functional graph hands its writes on to its inputs."""
    for node in reversed(list(graph.graph.nodes)):
        if node.target is torch.ops.aten.copy_.default and not node.users and node.args[0].op == "placeholder":
            graph.graph.erase_node(node)


class _Lifted(fx.Interpreter):
    """Runs a graph with other values for some of its constants."""

    def __init__(self, graph: fx.GraphModule, values: Mapping[Any, Tensor]):
        super().__init__(graph)
        self._values = values

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self._values[target] if target in self._values else super().get_attr(target, args, kwargs)


def constant(graph: fx.GraphModule, node: fx.Node) -> Any:
    """What a `get_attr` node of the graph stands for."""
    value = graph
    for name in str(node.target).split("."):
        value = getattr(value, name)
    return value.detach() if isinstance(value, Tensor) else value


def evaluated(node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    """What a node gives for these values of its inputs."""
    arguments, keywords = fx.node.map_arg((node.args, node.kwargs), lambda used: values[used])
    return node.target(*arguments, **keywords)


def placeholders(graph: fx.GraphModule) -> list[fx.Node]:
    """The nodes of a graph's inputs."""
    return [node for node in graph.graph.nodes if node.op == "placeholder"]


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _is_random(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags
