"""Which calls of torch functions in a net's forward pass give hidden units' values, where these lie, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from loss_landscape.units import rules
from loss_landscape.units.flow import followed
from loss_landscape.units.graph import require_net_and_inputs
from loss_landscape.units.labels import NONE, Labels, along, compact, varies
from loss_landscape.units.origins import Carried
from loss_landscape.units.rules import RULES, aten

SUMS_AND_COPIES = {aten.add, aten.sub, aten.rsub, aten.neg, aten.positive, aten.clone, aten._to_copy}
PRODUCTS = {aten.mul, aten.div}
"""Linear where one factor alone carries units."""


@dataclass(frozen=True)
class Place:
    """The dimension of a tensor along which `size` units lie one after the other, each in as many places as all others."""

    dim: int
    size: int


@dataclass(frozen=True)
class Call:
    """The call of a torch function, by name; `place` is where its output holds hidden units, None where it holds none in a row.

    One that `is_nonlinear` makes its output of these units alone, place by place. `next` are the non-linear calls that are made
    of its output before a weight reads it, by number; `is_read` says whether a weight reads it without them.
    """

    function: str
    place: Place | None = None
    is_nonlinear: bool = False
    is_read: bool = False
    next: tuple[int, ...] = ()


class CallWatch(TorchFunctionMode):
    """A context that hands `see` the name and the output of each call of a torch function, outermost calls only, in their order.

    >>> from loss_landscape.units.calls import CallWatch
    >>> inputs = torch.zeros(2)
    >>> with CallWatch(lambda name, output: print(name)):
    ...     _ = nn.functional.relu(inputs) + 1
    relu
    add
    """

    def __init__(self, see: Callable[[str, Any], None]):
        super().__init__()
        self._see = see

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        self._see(function.__name__.strip("_"), output)  # relu_, __add__
        return output


@contextmanager
def modules_at_work(net: nn.Module) -> Iterator[list[tuple[str, nn.Module]]]:
    """Inside, the modules that are being called with their names, the innermost last.

    It goes by hooks: where there are any, torch's attention takes no fused way, whose calls are others.
    """
    stack: list[tuple[str, nn.Module]] = [("", net)]
    handles = []
    for path, module in net.named_modules():
        place = (path, module)
        handles.append(module.register_forward_pre_hook(lambda *_, place=place: stack.append(place)))
        handles.append(module.register_forward_hook(lambda *_: _drop(stack), always_call=True))
    try:
        yield stack
    finally:
        for handle in handles:
            handle.remove()


def _drop(stack: list[tuple[str, nn.Module]]) -> None:
    stack.pop()


def calls_of(model: nn.Module, inputs: Any) -> tuple[Call, ...]:
    """The calls of the net `model` in eval mode, found by tracing it on a batch of `inputs`; two examples are enough.

    Raises `UntraceableError` for a net that is no fixed graph of operations.

    >>> from loss_landscape.units.calls import calls_of
    >>> class Net(nn.Sequential):
    ...     def forward(self, inputs):
    ...         return self[1](self[0](inputs).clamp(min=0))
    >>> [call.function for call in calls_of(Net(nn.Linear(2, 3), nn.Linear(3, 1)), torch.ones(2, 2)) if call.is_nonlinear]
    ['clamp']
    """
    require_net_and_inputs(model, inputs)
    names: list[str] = []
    numbers: list[int] = []  # of the calls whose outputs are kept

    def watch(forward: Callable[[], Any], net: nn.Module) -> tuple[Any, list[Tensor]]:
        names.clear()
        numbers.clear()
        kept: list[Tensor] = []

        def see(name: str, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and output.dim() > 1:
                numbers.append(len(names))
                kept.append(output.clone())  # as it is now: it may be written over
            names.append(name)

        with modules_at_work(net), CallWatch(see):
            return forward(), kept

    origins, known, seen = followed(model, inputs, watch)
    sources = {number: node.args[0] for number, node in zip(numbers, seen, strict=True)}
    course = _Course(origins.labels, known, sources)
    return tuple(course.call(number, name) for number, name in enumerate(names))


class _Course:
    """What becomes of the outputs of calls in a graph: `sources` has the node of each."""

    def __init__(self, labels: Labels, known: Mapping[fx.Node, Any], sources: Mapping[int, fx.Node]):
        self._labels, self._known, self._sources = labels, known, sources
        first = {node: number for number, node in reversed(sources.items())}  # others hand the same tensor on
        self._nonlinear = {node: number for node, number in first.items() if self._is_nonlinear(node)}

    def call(self, number: int, name: str) -> Call:
        """All that is told of a call."""
        node = self._sources.get(number)
        if node is None or not isinstance(self._known[node], Carried):
            return Call(name)
        is_read, after = self._followed(node)
        is_nonlinear = self._nonlinear.get(node) == number
        return Call(name, self._place(self._known[node].labels), is_nonlinear, is_read, tuple(after))

    def _place(self, labels: Tensor) -> Place | None:
        running = [dim for dim in range(labels.dim()) if varies(labels, dim)]
        entries = along(labels, running[0]) if len(running) == 1 else None
        if entries is None:
            return None
        units, counts = entries.unique_consecutive(return_counts=True)
        in_a_row = len(units) == len(units.unique()) and bool((counts == counts[0]).all()) and NONE not in units
        return Place(running[0], len(units)) if in_a_row else None

    def _is_nonlinear(self, node: fx.Node) -> bool:
        if not isinstance(node.target, torch._ops.OpOverload) or torch.Tag.pointwise not in node.target.tags:
            return False
        packet = node.target.overloadpacket
        given = [value for value in node.args if isinstance(value, fx.Node) and isinstance(self._known[value], Carried)]
        if not given or packet in SUMS_AND_COPIES or (packet in PRODUCTS and len(given) == 1):
            return False
        return all(self._present(value) == self._present(node) for value in given)

    def _followed(self, node: fx.Node) -> tuple[bool, list[int]]:
        """Whether a weight reads these units before another non-linear call has made something of them, and those calls."""
        layers, is_read, after = self._layers(node), False, dict[int, None]()
        waiting, met = [node], {node}
        while waiting:
            for user in _users(waiting.pop()):
                if user in met:
                    continue
                met.add(user)
                if _is_weight(user):
                    is_read = True
                elif user in self._nonlinear and self._present(user) == self._present(node):
                    after[self._nonlinear[user]] = None
                elif layers & self._layers(user):
                    waiting.append(user)
        return is_read, list(after)

    def _present(self, node: fx.Node) -> frozenset[int]:
        """The labels in what a node gives."""
        known = self._known[node]
        values: Sequence[Any] = known if isinstance(known, list) else [known]
        return frozenset(n for one in values if isinstance(one, Carried) for n in compact(one.labels).unique().tolist())

    def _layers(self, node: fx.Node) -> set[int]:
        """The layers whose units are in what a node gives, themselves and not in a mean or the like."""
        labels = self._present(node) - self._labels.statistics.keys()
        return {number for label in labels for number, _ in self._labels.sets[label]}


def _users(node: fx.Node) -> Iterator[fx.Node]:
    return (user for user in node.users if user.op == "call_function")


def _is_weight(node: fx.Node) -> bool:
    rule = RULES.get(node.target.overloadpacket) if isinstance(node.target, torch._ops.OpOverload) else None
    return rule in (rules.product, rules.convolution)
