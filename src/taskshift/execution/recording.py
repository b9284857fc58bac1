"""A learner's step written down once, as a graph of tensor operations."""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, fx

from loss_landscape.graphs.tracing import UntraceableError, traced
from taskshift.execution.leaves import Nested, leaves, nested
from taskshift.execution.losses import with_tensors
from taskshift.execution.unrecordable import UnrecordableError
from taskshift.learners.learner import Learner, Loss
from taskshift.learners.part import Tensors
from taskshift.shifts.task import Batch

aten = torch.ops.aten

CHANGING = ("net", "slots", "parts", "taken")
"""What of a learner's state its steps change."""

SAME_MEMORY = (aten.detach.default, aten.alias.default)
"""Operations that give back what they are given."""


class Given(NamedTuple):
    """All that a step goes by."""

    changing: Nested
    settings: Nested
    loss: Tensors
    draws: Nested
    inputs: Tensor  # [B, …]
    targets: Tensor  # [B, …]

    def flat(self) -> list[Tensor]:
        return [tensor for part in self for tensor in leaves(part, part)]

    def at_first(self) -> Given:
        """The same at the first of the steps that some of them are a sequence over."""
        return self.of([part if isinstance(part, Tensor) else part[0] for part in self.flat()])

    def of(self, flat: Sequence[Tensor]) -> Given:
        """These tensors in the same form."""
        left, parts = list(flat), []
        for part in self:
            size = len(leaves(part, part))
            parts.append(nested(left[:size], part))
            del left[:size]
        return Given(*parts)


@dataclass(frozen=True)
class Recording:
    """A step without in-place operations: the tensors of a `Given` → those that change, a row of numbers, the outputs."""

    graph: fx.GraphModule
    num_changing: int
    names: tuple[str, ...]  # of the row's numbers after its first, the loss
    row: Tensor  # [1 + names], as it was when recorded
    outputs: Tensor  # [B, K], likewise


def recorded(learner: Learner, loss: Loss, acting: Collection[str], given: Given, *, over_lanes: bool = False) -> Recording:
    """One step from `given`, recorded, and held against the step itself; nothing is written into `given`.

    With `over_lanes` every tensor has a first dimension more, that of the members of a stack, and so has what is recorded.

    Raises UnrecordableError where the step draws from torch's own generator, branches on values, or is another each time.
    """
    names: tuple[str, ...] = ()

    def step(*flat: Tensor) -> tuple[Tensor, ...]:
        nonlocal names
        now = given.of(flat)
        state, told = learner.step(
            {**now.changing, "settings": now.settings},
            Batch(now.inputs, now.targets),
            with_tensors(loss, now.loss),
            now.draws,
            acting=acting,
        )
        names = tuple(told.numbers)
        row = torch.stack([told.loss, *(number.to(told.loss.dtype) for number in told.numbers.values())])
        return *_after(now.changing, state), row, told.outputs

    flat, whole = given.flat(), torch.vmap(step) if over_lanes else step
    try:
        graph = traced(whole, flat)
    except UntraceableError as error:
        raise UnrecordableError(str(error)) from error
    _without_detach(graph)
    found, expected = graph(*flat), whole(*flat)
    if not all(_close(ours, theirs) for ours, theirs in zip(found, expected, strict=True)):
        raise UnrecordableError("done again from the same state it gives other numbers")
    return Recording(graph, len(expected) - 2, names, *expected[-2:])


def _after(before: Nested, state: Nested) -> list[Tensor]:
    """What the step made of the tensors that change, in their order."""
    old, new = leaves(before, before), leaves({key: state[key] for key in before}, before)
    for one, other in zip(old, new, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            raise TypeError(f"a tensor {list(one.shape)} of {one.dtype} became {list(other.shape)} of {other.dtype}")
    return new


def _without_detach(graph: fx.GraphModule) -> None:
    for node in list(graph.graph.nodes):
        if node.target in SAME_MEMORY:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.recompile()


def _close(one: Tensor, other: Tensor) -> bool:
    tolerance = 1e-9 if one.dtype == torch.float64 else 1e-4
    return torch.allclose(one.double(), other.double(), rtol=tolerance, atol=tolerance, equal_nan=True)


def in_place(graph: fx.GraphModule, num_changing: int) -> fx.GraphModule:
    """The graph of a `Recording` with two more inputs and without results: it writes them over its first inputs and over those.

    They are written last, so that every operation has seen the old values.
    """
    nodes = fx.Graph()
    *changed, row, outputs = nodes.graph_copy(graph.graph, {})
    places = [node for node in nodes.nodes if node.op == "placeholder"]
    with nodes.inserting_after(places[-1]):
        for_outputs = _placeholder(nodes, "outputs_out", outputs)
    with nodes.inserting_before(for_outputs):
        for_row = _placeholder(nodes, "row_out", row)
    writes = [(for_row, row), (for_outputs, outputs)]
    writes += [
        (place, _apart(nodes, value)) for place, value in zip(places[:num_changing], changed, strict=True) if value is not place
    ]
    for place, value in writes:
        _like(nodes.call_function(aten.copy_.default, (place, value)), place)
    nodes.output(())
    nodes.lint()
    return fx.GraphModule(graph, nodes)


def _placeholder(nodes: fx.Graph, name: str, like: fx.Node) -> fx.Node:
    return _like(nodes.placeholder(name), like)


def _apart(nodes: fx.Graph, value: fx.Node) -> fx.Node:
    """The value in memory that no writing over an input changes."""
    source = value
    while source.op == "call_function" and _is_view(source.target):
        source = source.args[0]
    return _like(nodes.call_function(aten.clone.default, (value,)), value) if source.op == "placeholder" else value


def _is_view(target: object) -> bool:
    if target is operator.getitem:  # one of several results, such as a split's
        return True
    return isinstance(target, torch._ops.OpOverload) and any(of.alias_info is not None for of in target._schema.returns)


def _like(node: fx.Node, other: fx.Node) -> fx.Node:
    node.meta = dict(other.meta)
    return node
