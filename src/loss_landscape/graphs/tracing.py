"""Functions of tensors as graphs of aten operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from loss_landscape.graphs.constant_fills import take_out_forms
from loss_landscape.graphs.value_reads import LeavesTorch, UntraceableError, looked_at

__all__ = ["SpecializedGraph", "UntraceableError", "constant", "evaluated", "placeholders", "specialized", "traced"]


def traced(function: Callable[..., Any], inputs: Sequence[Tensor]) -> fx.GraphModule:
    """`function(*inputs)` as a graph without in-place operations, one placeholder for each input.

    What the function writes into its inputs is gone afterwards: neither the run nor the graph changes them. Tensors that it
    closes over become constants. Raises `UntraceableError` where the result would not be the function, as where it looks at
    values: where it branches on them, where a shape depends on them, or they go through NumPy or a list.
    """
    graph, result, _ = _traced(function, inputs, len(inputs))
    return _giving(graph, result)


@dataclass(frozen=True, eq=False)
class SpecializedGraph:
    """A graph for some values of its fixed inputs: those for which `reads` gives what it gave when the graph was traced."""

    graph: fx.GraphModule
    reads: fx.GraphModule | None  # what was looked at of the fixed inputs, as a function of all inputs
    seen: tuple[Tensor, ...] = ()

    def serves(self, inputs: Sequence[Tensor]) -> bool:
        """Whether the function has this graph for these inputs too, which have the shapes of those that it was traced for."""
        if self.reads is None:
            return True
        values: dict[fx.Node, Any] = dict(zip(placeholders(self.reads), inputs, strict=True))
        outputs: Any = self.reads.graph.output_node().args[0]
        expected = dict(zip(outputs, self.seen, strict=True))
        for node in self.reads.graph.nodes:
            if node.op == "get_attr":
                values[node] = constant(self.reads, node)
            elif node.op == "call_function":
                values[node] = evaluated(node, values)  # what it reads was as expected: its operation and shapes are known
            if node in expected and not torch.equal(values[node], expected[node]):
                return False
        return True


def specialized(function: Callable[..., Any], inputs: Sequence[Tensor], num_varying: int) -> SpecializedGraph:
    """`function(*inputs)` as a graph of its first `num_varying` inputs, of which the others decide the form.

    Of these the function may look at values: whether a mask lets everything through, how long a sentence is, which places are
    selected. The rest is as in `traced`.
    """
    graph, result, reads = _traced(function, inputs, num_varying)
    take_out_forms(graph)
    if not reads:
        return SpecializedGraph(_giving(graph, result), None)
    looks = _giving(graph, tuple(reads))
    with torch.no_grad():
        return SpecializedGraph(_giving(graph, result), looks, tuple(value.clone() for value in looks(*inputs)))


def _traced(
    function: Callable[..., Any], inputs: Sequence[Tensor], num_varying: int
) -> tuple[fx.GraphModule, Any, list[fx.Node]]:
    """A graph, the nodes that the function gives, and those whose values it looked at."""
    inputs = [tensor.detach().clone() for tensor in inputs]

    def watched(*tensors: Tensor) -> tuple[Any, list[Tensor]]:
        with LeavesTorch() as leaving:
            result = function(*tensors)
        return result, leaving.copies

    try:
        with _one_fake_mode():
            graph = make_fx(watched, _error_on_data_dependent_ops=False)(*inputs)
        if any(map(_writes, graph.graph.nodes)):
            graph = _functional(graph, inputs)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise UntraceableError(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__) from error
    for node in graph.graph.nodes:
        if _writes(node) or _is_random(node):
            raise UntraceableError(f"{node.target} writes in place or draws random numbers")
    outputs: Any = graph.graph.output_node().args[0]
    result, handed_out = outputs
    return graph, result, looked_at(graph.graph, handed_out, num_varying)


@contextmanager
def _one_fake_mode() -> Iterator[None]:
    """Inside, make_fx keeps the shapes of all nodes in one fake mode: else it makes one for each, which is half of its time."""
    with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
        yield


def _giving(graph: fx.GraphModule, result: Any) -> fx.GraphModule:
    """The graph with another result, some of its nodes, and nothing more than these need; its constants are shared."""
    copy, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    copy.graph_copy(graph.graph, copies)
    copy.output(fx.node.map_arg(result, copies.__getitem__))
    copy.eliminate_dead_code()
    return fx.GraphModule(graph, copy)


def _functional(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> fx.GraphModule:
    """The graph without in-place operations; its constants are inputs meanwhile, so that writes to copies of them go too."""
    attributes = {node.target: constant(graph, node) for node in graph.graph.nodes if node.op == "get_attr"}
    tensors = {name: value for name, value in attributes.items() if isinstance(value, Tensor)}

    def run(*values: Tensor) -> Any:
        return _Lifted(graph, dict(zip(tensors, values[len(inputs) :], strict=True))).run(*values[: len(inputs)])

    with _one_fake_mode():
        lifted = make_fx(functionalize(run, remove="mutations"), _error_on_data_dependent_ops=False)(*inputs, *tensors.values())
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
