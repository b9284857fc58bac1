"""The operations of a function that depend on its inputs, recorded from one run of it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from loss_landscape.graphs.recording_passes import RecordingOptimizer, TensorSpec
from loss_landscape.graphs.tracing import UntraceableError
from loss_landscape.nested import map_tensors, tensors_in

READS_VALUES = {torch.Tag.nondeterministic_seeded, torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Recording:
    """What `function(*inputs)` does with its inputs; what does not depend on them was computed once and is kept.

    A linear function is checked: played back for -2 times the inputs it must give -2 times the result. Unlike a trace by
    make_fx it costs one run of the function, may branch on what is constant, and keeps in-place operations in their order.
    Raises `UntraceableError` where the function looks at values that depend on the inputs, or draws by them.
    """

    def __init__(self, function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]):
        tape = _Tape(inputs)
        with tape:
            outputs = function(*inputs)
        self._constants, self._play = tape.finished(outputs)
        doubled = self(*(-2 * tensor for tensor in inputs))
        if not all(map(_is_minus_twice, doubled, outputs)):
            raise UntraceableError("played back, its operations do not give the same result")

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The function's results for other inputs of the same shapes."""
        with torch.no_grad():
            return self._play(*inputs, *self._constants)

    @property
    def num_bytes(self) -> int:
        """The memory of the constants."""
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in self._constants}
        return sum(storages.values())


class _Tape(TorchDispatchMode):
    """Writes every operation on a tensor that depends on the inputs into a graph, whose other inputs are constants."""

    def __init__(self, inputs: Sequence[Tensor]):
        super().__init__()
        self.graph = fx.Graph()
        self.nodes = WeakIdKeyDictionary()  # of the tensors that depend on the inputs
        self.constants: dict[fx.Node, Tensor] = {}
        self.current: dict[int, fx.Node] = {}  # by id, of the constants as they are now
        for index, tensor in enumerate(inputs):
            self.nodes[tensor] = _with_spec(self.graph.placeholder(f"input_{index}"), tensor)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = _materialized((args, kwargs or {}))
        depends = any(tensor in self.nodes for tensor in tensors_in((args, kwargs)))
        for tensor in _written(function, args, kwargs):
            if tensor not in self.nodes:
                self._before_a_write(tensor, depends)
        result = function(*args, **kwargs)
        if depends:
            self._record(function, args, kwargs, result)
        return result

    def finished(self, outputs: Sequence[Tensor]) -> tuple[list[Tensor], fx.GraphModule]:
        """The constants, and the graph as a function of the inputs and of them."""
        self.graph.output(tuple(self._node(tensor) for tensor in outputs))
        self.graph.eliminate_dead_code()
        RecordingOptimizer(self.graph, self.constants).rewrite()
        for node in [node for node in self.constants if not node.users]:
            self.graph.erase_node(node)
        # apart from the module, which is a cycle of references: they must go when they are dropped, not at the next collection
        constants = [self.constants[node] for node in self.graph.nodes if node in self.constants]
        return constants, fx.GraphModule(torch.nn.Module(), self.graph)

    def _record(self, function: Any, args: Any, kwargs: Any, result: Any) -> None:
        if READS_VALUES.intersection(function.tags):
            raise UntraceableError(f"{function} draws random numbers, or looks at values that depend on the inputs")
        node = self.graph.call_function(function, self._nodes_of(args), self._nodes_of(kwargs))
        if isinstance(result, Tensor):
            self.nodes[result] = _with_spec(node, result)
        elif isinstance(result, tuple | list):
            for index, part in enumerate(result):
                if isinstance(part, Tensor):
                    self.nodes[part] = _with_spec(self.graph.call_function(operator.getitem, (node, index)), part)

    def _nodes_of(self, arguments: Any) -> Any:
        return map_aggregate(arguments, lambda value: self._node(value) if isinstance(value, Tensor) else value)

    def _node(self, tensor: Tensor) -> fx.Node:
        if tensor in self.nodes:
            return self.nodes[tensor]
        if id(tensor) not in self.current:
            node = self.graph.placeholder(f"constant_{len(self.constants)}")
            self.current[id(tensor)], self.constants[node] = _with_spec(node, tensor), tensor
        return self.current[id(tensor)]

    def _before_a_write(self, tensor: Tensor, depends: bool) -> None:
        """Keep what the constants in the same memory are now: it was recorded before the write."""
        if depends:
            raise UntraceableError("what depends on the inputs is written into a tensor that does not")
        memory = tensor.untyped_storage().data_ptr()
        for key, node in list(self.current.items()):
            if self.constants[node].untyped_storage().data_ptr() == memory:
                self.constants[node] = self.constants[node].clone()
                del self.current[key]


def _materialized(arguments: Any) -> Any:
    """Zeros in memory in place of those without: torch's rules for these crash inside a dispatch mode."""
    if not any(tensor._is_zerotensor() for tensor in tensors_in(arguments)):
        return arguments
    return map_tensors(lambda t: torch.zeros(t.shape, dtype=t.dtype, device=t.device) if t._is_zerotensor() else t, arguments)


def _with_spec(node: fx.Node, tensor: Tensor) -> fx.Node:
    node.meta["spec"] = TensorSpec.of(tensor)
    return node


def _written(function: Any, args: Any, kwargs: Any) -> list[Tensor]:
    arguments = function._schema.arguments
    given = [*zip(arguments, args, strict=False), *((a, kwargs[a.name]) for a in arguments if a.name in kwargs)]
    return tensors_in([value for argument, value in given if argument.alias_info is not None and argument.alias_info.is_write])


def _is_minus_twice(doubled: Tensor, result: Tensor) -> bool:
    tolerance = 1e-10 if result.dtype == torch.float64 else 1e-4
    return not bool((doubled + 2 * result).norm() > tolerance * result.norm())  # a net that has diverged gives NaN
