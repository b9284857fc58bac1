"""Finding the groups of units of any net by tracing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from loss_landscape.graphs.tracing import constant, evaluated, placeholders, traced
from loss_landscape.nested import map_tensors, tensors_in
from loss_landscape.objective.functional_net import undisturbed
from loss_landscape.objective.private_copy import evaluating_clone
from loss_landscape.units.axes import Axes, Factor, axes_of, fix, resolved
from loss_landscape.units.permutations import Part, State, UnitGroups
from loss_landscape.units.rules import INPUT, OUTPUT, POSITIONS, Known, axes_after

CHANGES_OUTPUTS = "reordering it changed the outputs"


def unit_groups(model: nn.Module, inputs: Any) -> UnitGroups:
    """The groups of units of the net `model` that may change places, found by tracing it in eval mode on a batch of `inputs`.

    `inputs` are as a surface's: a tensor, a tuple of arguments, or a dict. Each group is tried: where reversing it changes the
    outputs it is left out. What is frozen, concatenated, cut, looked at by its place, or goes through a grouped convolution or an
    operation not known here stays in its order, and `fixed` says why. Raises `UntraceableError` for a net that is no fixed graph.

    >>> unit_groups(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), torch.ones(1, 2))
    UnitGroups(sizes (3,), 4 tensors, 0 fixed)
    """
    return UnitGraph.of(model, inputs).groups


@dataclass(frozen=True, eq=False)
class UnitGraph:
    """A net traced to a graph of its state and its inputs, with the axes of what each node gives."""

    graph: fx.GraphModule
    names: tuple[str, ...]  # of the tensors of the state, which are the graph's first inputs
    aliases: Mapping[str, str]  # other names of tied tensors
    inputs: tuple[Tensor, ...]
    axes: Known

    @classmethod
    def of(cls, model: nn.Module, inputs: Any, state: State | None = None) -> UnitGraph:
        """The graph of a net traced on a batch of inputs, with the tensors of `state` in place of its own; see `unit_groups`."""
        require_net_and_inputs(model, inputs)
        state = state or {**dict(model.named_parameters()), **dict(model.named_buffers())}
        names, given = tuple(state), tuple(tensors_in(inputs))
        axes = [*_axes_of_state(model, state), *(axes_of(tensor.shape, INPUT) for tensor in given)]
        with undisturbed(given[0].device), torch.no_grad():
            graph = traced(as_function(evaluating_clone(model), names, inputs), [*state.values(), *given])
            found = cls(graph, names, _aliases(model, names), given, _through(graph, axes))
            found._fix_what_changes_outputs({name: tensor.detach() for name, tensor in state.items()})
        return found

    @property
    def groups(self) -> UnitGroups:
        """The groups of units that may change places."""
        numbers = self._group_numbers()
        axes = {name: self.axes[node] for name, node in zip(self.names, placeholders(self.graph), strict=False)}
        axes |= {alias: axes[name] for alias, name in self.aliases.items()}
        parts = {name: _parts(one, numbers) for name, one in axes.items()}
        stay = [name for name, found in parts.items() if found and all(part.group is None for part in found)]
        return UnitGroups(tuple(factor.size for factor in numbers), parts, {name: _reason(axes[name]) for name in stay})

    def activations(self, *states: State) -> Iterator[tuple[tuple[Part, ...], list[Tensor]]]:
        """What each operation on the inputs gives with each of these states, and what the dimensions of that count."""
        numbers, held = self._group_numbers(), placeholders(self.graph)
        values = {node: [state[name] for state in states] for name, node in zip(self.names, held, strict=False)}
        values |= {node: [tensor] * len(states) for node, tensor in zip(held[len(self.names) :], self.inputs, strict=True)}
        computed, last = set(held[len(self.names) :]), _last_reads(self.graph)
        for node in self.graph.graph.nodes:
            if node.op == "get_attr":
                values[node] = [constant(self.graph, node)] * len(states)
            elif node.op == "call_function":
                read = node.all_input_nodes
                values[node] = [evaluated(node, {one: values[one][number] for one in read}) for number in range(len(states))]
                if not computed.isdisjoint(read):
                    computed.add(node)
                    if isinstance(values[node][0], Tensor):
                        yield _parts(self.axes[node], numbers), values[node]
            for gone in last[node]:
                del values[gone]

    def gives_outputs(self, name: str) -> bool:
        """Whether the first dimension of a tensor of the state counts what the net gives out."""
        node = placeholders(self.graph)[self.names.index(name)]
        return any(factor.fixed == OUTPUT for factor in resolved(self.axes[node][0]))

    def outputs(self, state: State) -> list[Tensor]:
        """What the net gives with the tensors of `state`."""
        return tensors_in(self.graph(*(state[name] for name in self.names), *self.inputs))

    def _group_numbers(self) -> dict[Factor, int]:
        """The factors of the parameters that are free, each with the number of its group."""
        found = [
            factor
            for node in placeholders(self.graph)[: len(self.names)]
            for axis in self.axes[node]
            for factor in resolved(axis)
        ]
        return {factor: number for number, factor in enumerate(dict.fromkeys(factor for factor in found if not factor.fixed))}

    def _fix_what_changes_outputs(self, state: State) -> None:
        """Fix the units whose reversal changes the outputs: the rules know what operations do, not what is in their constants."""
        plain, groups = self.outputs(state), self.groups
        here, there = groups.identity(), [order.flip(0) for order in groups.identity()]
        if _agree(plain, self.outputs(groups.permuted(state, there))):
            return
        for factor, number in self._group_numbers().items():
            alone = [*here[:number], there[number], *here[number + 1 :]]
            if not _agree(plain, self.outputs(groups.permuted(state, alone))):
                fix((factor,), CHANGES_OUTPUTS)


def require_net_and_inputs(model: Any, inputs: Any) -> None:
    """TypeError for what is no net, and for inputs without a tensor."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected the net itself, a torch.nn.Module, to trace, got {type(model).__name__}")
    if not tensors_in(inputs):
        given = "None" if inputs is None else f"{type(inputs).__name__} without a tensor"
        raise TypeError(
            f"expected a batch of inputs to trace the net on, got {given}; give what the net is called with: a tensor, a tuple "
            "of arguments, or a dict"
        )


def _last_reads(graph: fx.GraphModule) -> dict[fx.Node, list[fx.Node]]:
    """The nodes whose last reader each node is, so that no more is held than is needed."""
    readers = {read: node for node in graph.graph.nodes for read in node.all_input_nodes}
    found: dict[fx.Node, list[fx.Node]] = {node: [] for node in graph.graph.nodes}
    for read, node in readers.items():
        found[node].append(read)
    return found


def as_function(net: nn.Module, names: Sequence[str], inputs: Any) -> Callable[..., Any]:
    """The net as a function of the tensors of its state and of those in `inputs`."""

    def function(*tensors: Tensor) -> Any:
        rest = iter(tensors[len(names) :])
        filled = map_tensors(lambda _: next(rest), inputs)
        keywords = dict(filled) if isinstance(filled, Mapping) else {}
        positional = () if keywords else tuple(filled) if isinstance(filled, tuple | list) else (filled,)
        return functional_call(net, dict(zip(names, tensors, strict=False)), positional, keywords)

    return function


def _axes_of_state(model: nn.Module, state: State) -> list[Axes]:
    """The axes of each tensor: free, but for those outside the state dict, and frozen parameters."""
    kept, frozen = model.state_dict(), {name for name, p in model.named_parameters() if not p.requires_grad}
    return [
        axes_of(tensor.shape, "not in the state dict" if name not in kept else "frozen" if name in frozen else "")
        for name, tensor in state.items()
    ]


def _aliases(model: nn.Module, names: Sequence[str]) -> dict[str, str]:
    first = {id(tensor): name for name, tensor in model.named_parameters()}
    return {name: first[id(p)] for name, p in model.named_parameters(remove_duplicate=False) if name not in names}


def _through(graph: fx.GraphModule, axes: Sequence[Axes]) -> Known:
    """The axes of every node, given those of the inputs; what is not used, or is the net's output, is fixed."""
    known: Known = dict(zip(placeholders(graph), axes, strict=True))
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            value = constant(graph, node)
            known[node] = axes_of(value.shape, "a constant") if isinstance(value, Tensor) else ()
        elif node.op == "call_function":
            known[node] = axes_after(node, known)
        for axis in known[node] if node.op == "placeholder" and not node.users else ():
            fix(axis, "not used")
    (last,) = (node for node in graph.graph.nodes if node.op == "output")
    for node in last.all_input_nodes:
        for axis in known[node]:
            fix(axis, OUTPUT)
    return known


def _parts(axes: Axes, numbers: Mapping[Factor, int]) -> tuple[Part, ...]:
    return tuple(Part(factor.size, numbers.get(factor)) for axis in axes for factor in resolved(axis))


def _reason(axes: Axes) -> str:
    """Why a tensor stays in its order; that inputs, outputs and places do goes without saying where there is another reason."""
    reasons = [factor.fixed for axis in axes for factor in resolved(axis)]
    return next((why for why in reasons if why not in (INPUT, OUTPUT, POSITIONS)), reasons[0])


def _agree(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Whether outputs are the same up to rounding."""
    return all(
        torch.allclose(a, b, rtol=0, atol=torch.finfo(a.dtype).eps ** 0.5 * float(a.abs().max()), equal_nan=True)
        for a, b in zip(one, other, strict=True)
        if a.is_floating_point() and a.numel()
    )
