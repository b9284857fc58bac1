"""Which units come to each place of each tensor of a traced net, and what the tensors of its state do to them.

Operations that only move numbers are carried out on labels of units, and on the indices of weights: where a flattening, a cut or
a head of attention leaves each of them needs no rule. Only what mixes numbers has one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from loss_landscape.graphs.tracing import placeholders
from loss_landscape.units import rules
from loss_landscape.units.labels import NONE, OTHER, Labels, Unit, along, compact, spread, varies
from loss_landscape.units.rules import RULES, aten, dims_gone, num_places, shapes

MOVES = (rules.same, rules.reshaped, rules.transposed, rules.permuted, rules.expanded, rules.padded, rules.joined, rules.cut)
NORMS: Mapping[Any, tuple[str, Mapping[str, int]]] = {  # each kind's name, what it holds and at which argument
    rules.batch_norm: ("batch", {"scale": 1, "shift": 2, "mean": 3, "variance": 4}),
    rules.layer_norm: ("layer", {"scale": 2, "shift": 3}),
    rules.group_norm: ("group", {"scale": 1, "shift": 2}),
}
SUMS = {aten.add, aten.sub, aten.rsub}
ACTIVATIONS = {
    *(aten.relu, aten.gelu, aten.silu, aten.tanh, aten.sigmoid, aten.elu, aten.leaky_relu, aten.hardtanh, aten.softplus),
    *(aten.mish, aten.hardswish, aten.hardsigmoid, aten._prelu_kernel, aten.threshold, aten.sin, aten.cos),
    *(aten.log_sigmoid_forward, aten.softshrink, aten.hardshrink),
}
COMPUTED = "a weight that is computed from others"


@dataclass(frozen=True)
class Held:
    """A tensor of the state as operations that only move its entries left it: their indices there, for each dimension."""

    name: str
    sizes: tuple[int, ...]  # of its own dimensions
    indices: tuple[Tensor, ...]


@dataclass(frozen=True)
class Carried:
    """An activation: the label of each of its places."""

    labels: Tensor


Value = Held | Carried | None
"""What is known of a tensor; nothing of what is computed from the state alone."""


@dataclass(frozen=True)
class Use:
    """What the places along a dimension of a tensor of the state have to do with units: `labels` has theirs, place by place."""

    role: str  # "reads", "bias", "scale", "shift", "mean", "variance" or "other"
    tensor: str
    dim: int
    labels: tuple[int, ...]
    makes: int | None = None  # of one that reads: the layer that it makes
    norm: str = ""  # which kind


@dataclass(frozen=True)
class Made:
    """A layer's units: the tensor whose places along a dimension make one each, and the label of the first."""

    tensor: str
    dim: int
    size: int
    first: int


@dataclass
class Origins:
    """All that is found out about a traced net's units."""

    labels: Labels = field(default_factory=Labels)
    made: list[Made] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    activations: dict[int, str] = field(default_factory=dict)  # of a label: the first that its values go through
    lost: dict[int, str] = field(default_factory=dict)  # of a label: the operation after which it cannot be followed

    @cached_property
    def uses_by_layer(self) -> Mapping[int, Sequence[Use]]:
        """A layer's number → all that has to do with its units; to be asked for when all is found."""
        found: dict[int, list[Use]] = {}
        for use in self.uses:
            for number in {number for label in set(use.labels) for number, _ in self.labels.sets[label]}:
                found.setdefault(number, []).append(use)
        return found

    def lose(self, labels: Tensor, why: str) -> None:
        """Give up the units of these labels."""
        for label in compact(labels).unique().tolist():
            self.lost.setdefault(label, self.labels.statistics.get(label, why))

    def activation(self, unit: Unit) -> str:
        """The first activation that a unit goes through, alone or with others; empty where there is none."""
        alone = self.activations.get(self.labels.of([unit]), "")
        return alone or next((name for label, name in self.activations.items() if unit in self.labels.sets[label]), "")

    def layer(self, tensor: str, dim: int, size: int) -> int:
        """The number of the layer that these places make; one that is used twice is one layer."""
        for number, known in enumerate(self.made):
            if (known.tensor, known.dim) == (tensor, dim):
                return number
        number = len(self.made)
        labels = [self.labels.of([(number, place)]) for place in range(size)]
        self.made.append(Made(tensor, dim, size, labels[0]))
        return number


def origins_of(graph: fx.GraphModule, names: Sequence[str]) -> tuple[Origins, dict[fx.Node, Any]]:
    """What is found of the units of a graph whose first inputs are the tensors of the state called `names`; and of each node."""
    walk = _Walk(Origins())
    for number, node in enumerate(placeholders(graph)):
        shape = node.meta["val"].shape
        if number < len(names):
            indices = tuple(spread(torch.arange(size), dim, shape) for dim, size in enumerate(shape))
            walk.known[node] = Held(names[number], tuple(shape), indices)
        else:
            walk.known[node] = nothing(shape)
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            walk.known[node] = None
        elif node.op == "call_function":
            walk.known[node] = walk.through(node)
    return walk.found, walk.known


class _Walk:
    """Goes through a graph, node after node."""

    def __init__(self, found: Origins):
        self.found = found
        self.known: dict[fx.Node, Any] = {}
        self._rules: Mapping[Any, Callable[[fx.Node], Any]] = {
            rules.product: self._product,
            rules.convolution: self._convolution,
            rules.reduced: self._reduced,
            rules.over_places: self._over_places,
            rules.embedded: self._from_outside,
            rules.pointwise: self._pointwise,
            **dict.fromkeys(NORMS, self._norm),
        }

    def through(self, node: fx.Node) -> Any:
        """What is known of what a node gives."""
        if node.target is operator.getitem:
            values = self.known[node.args[0]]
            return values[node.args[1]] if isinstance(values, list) else values
        rule = RULES.get(node.target.overloadpacket)
        values = [self.known[used] for used in node.all_input_nodes]
        if not any(isinstance(value, Carried) for value in values):
            return self._moved_weight(node) if rule in MOVES and len(values) == 1 and values[0] is not None else None
        if rule in MOVES:
            return _each(Carried, _moved(node, self._labels))
        if rule in self._rules:
            return self._rules[rule](node)
        return self._pointwise(node) if torch.Tag.pointwise in node.target.tags else self._unknown(node)

    def _labels(self, node: fx.Node) -> Tensor:
        value = self.known[node]
        return value.labels if isinstance(value, Carried) else nothing(shapes(node)).labels

    def _moved_weight(self, node: fx.Node) -> Any:
        (given,) = node.all_input_nodes
        held = self.known[given]
        moved = [_moved(node, {given: one}.__getitem__) for one in held.indices]
        if moved and isinstance(moved[0], list):
            return [Held(held.name, held.sizes, of) for of in zip(*moved, strict=True)]
        return Held(held.name, held.sizes, tuple(moved))

    # -- operations that mix numbers --------------------------------------------------------------------------------

    def _unknown(self, node: fx.Node) -> Any:
        for used in node.all_input_nodes:
            self.found.lose(self._labels(used), f"the operation {_name(node)}")
        return self._from_outside(node)

    def _from_outside(self, node: fx.Node) -> Any:
        """Activations that carry no unit."""
        return _each(nothing, shapes(node))

    def _pointwise(self, node: fx.Node) -> Carried:
        shape, is_sum = shapes(node), node.target.overloadpacket in SUMS
        carried = [self._labels(used) for used in node.all_input_nodes if isinstance(self.known[used], Carried)]
        if len(carried) > 1:  # a sum with what is no unit cannot be undone by the units alone
            carried = [_with(NONE, OTHER, one) if is_sum else _with(OTHER, NONE, one) for one in carried]
        labels = carried[0].expand(shape)
        for other in carried[1:]:
            labels = self.found.labels.met(labels, other).expand(shape)
        if len(carried) == 1 and node.target.overloadpacket in ACTIVATIONS:
            for label in compact(labels).unique().tolist():
                self.found.activations.setdefault(label, _name(node))
        for used in node.all_input_nodes:
            if isinstance(self.known[used], Held):
                self._beside(self.known[used], labels, "bias" if is_sum else "other")
        return Carried(labels)

    def _beside(self, held: Held, labels: Tensor, role: str) -> None:
        """Note what a tensor that is broadcast to an activation holds for its units."""
        dims = held.indices[0].dim() if held.indices else 0
        for place in range(-dims, 0):
            entries, here = _dim_along(held, place), along(labels, place) if varies(labels, place) else None
            if entries is not None and here is not None:
                self._note(role, held, entries, here)

    def _at_dim(self, held: Held, labels: Tensor, dim: int, role: str, norm: str = "") -> None:
        """Note what a vector holds for the units along a dimension."""
        entries, here = _dim_along(held, 0), along(labels, dim)
        if entries is not None and here is not None:
            self._note(role, held, entries, here, norm=norm)

    def _note(self, role: str, held: Held, entries: tuple[int, Tensor], labels: Tensor, **more: Any) -> None:
        """Note which units' labels come to the places `entries[1]` of dimension `entries[0]` of a tensor."""
        dim, places = entries
        before = next((use for use in self.found.uses if (use.role, use.tensor, use.dim) == (role, held.name, dim)), None)
        own = [NONE] * held.sizes[dim] if before is None else list(before.labels)
        for place, label in zip(places.tolist(), labels.tolist(), strict=True):
            own[place] = self.found.labels.both(own[place], label)
        if before is not None:
            self.found.uses.remove(before)
        self.found.uses.append(Use(role, held.name, dim, tuple(own), **more))

    def _read(self, labels: Tensor, dim: int, held: Held, at: tuple[int, int]) -> tuple[int, Tensor] | None:
        """Let a weight read an activation along `dim`; what it makes: its layer's number, and the units' places in it.

        `at` are the weight's places that are summed over, and that are left.
        """
        here, summed = along(labels, dim), _dim_along(held, at[0])
        left = _dim_along(held, at[1], None if summed is None or at[0] == at[1] else summed[0])
        made = None if left is None else self.found.layer(held.name, left[0], held.sizes[left[0]])
        if here is None or summed is None:
            self.found.lose(labels, "a weight that reads its units in more ways than one")
        else:
            self._note("reads", held, summed, here, makes=made)
            for label in set(here.tolist()) & self.found.labels.statistics.keys():
                self.found.lose(here[here == label], "a statistic")
        return None if left is None or made is None else (made, left[1])

    def _new(self, made: tuple[int, Tensor] | None, dim: int, shape: Sequence[int]) -> Tensor:
        """The labels of what a layer gives, its units along `dim`."""
        if made is None:
            return nothing(shape).labels
        return spread(self.found.made[made[0]].first + made[1], dim, shape)

    def _product(self, node: fx.Node) -> Carried:
        *summand, left, right = node.args[:3]
        one, other, shape = self.known[left], self.known[right], shapes(node)
        if isinstance(one, Carried) and isinstance(other, Carried):
            labels = self._of_two(one.labels, other.labels, shape)
        elif isinstance(one, Carried) and isinstance(other, Held):
            labels = self._new(self._read(one.labels, -1, other, (-2, -1)), -1, shape)
        elif isinstance(one, Held) and isinstance(other, Carried):
            labels = self._new(self._read(other.labels, -2, one, (-1, -2)), -2, shape)
        else:
            self.found.lose(self._labels(left if isinstance(one, Carried) else right), COMPUTED)
            labels = nothing(shape).labels
        for used in summand:
            if isinstance(self.known[used], Held):
                self._at_dim(self.known[used], labels, -1, "bias")
        return Carried(labels)

    def _of_two(self, left: Tensor, right: Tensor, shape: Sequence[int]) -> Tensor:
        """A product of activations, such as attention's: units go through where they are not what is summed over."""
        found = nothing(shape).labels
        for labels, dim in ((left, -1), (right, -2)):
            if varies(labels, dim):
                self.found.lose(labels, "a product of units with units")
            else:
                found = self.found.labels.met(found, _with(OTHER, NONE, labels.narrow(dim, 0, 1))).expand(tuple(shape))
        return found

    def _convolution(self, node: fx.Node) -> Carried:
        labels, held, shape = self._labels(node.args[0]), self.known[node.args[1]], shapes(node)
        transposed, groups = node.args[6], node.args[8]
        if not isinstance(held, Held) or not isinstance(self.known[node.args[0]], Carried):
            self.found.lose(labels, COMPUTED)
            return nothing(shape)
        if groups == 1:
            made = self._read(labels, 1, held, (0, 1) if transposed else (1, 0))
        elif held.indices[0].shape[1] == 1 and not transposed:  # depthwise
            made = self._read(labels.repeat_interleave(shape[1] // labels.shape[1], dim=1), 1, held, (0, 0))
        else:
            self.found.lose(labels, rules.GROUPED)
            left = None if transposed else _dim_along(held, 0)
            made = None if left is None else (self.found.layer(held.name, left[0], held.sizes[left[0]]), left[1])
        found = self._new(made, 1, shape)
        if node.args[2] is not None and isinstance(self.known[node.args[2]], Held):
            self._at_dim(self.known[node.args[2]], found, 1, "bias")
        return Carried(found)

    def _norm(self, node: fx.Node) -> list[Carried]:
        labels = self._labels(node.args[0])
        kind, held = NORMS[RULES[node.target.overloadpacket]]
        for role, place in held.items():
            value = self.known[node.args[place]] if node.args[place] is not None else None
            if isinstance(value, Held):
                self._at_dim(value, labels, -1 if kind == "layer" else 1, role, norm=kind)
        return [Carried(labels), *self._from_outside(node)[1:]]

    def _reduced(self, node: fx.Node) -> Carried:
        labels = self._labels(node.args[0])
        gone, shape = dims_gone(node, labels.dim()), shapes(node)
        keeps = len(shape) == labels.dim()
        for dim in sorted(gone, reverse=True):
            if varies(labels, dim):
                label = self.found.labels.statistic(compact(labels), f"{_name(node)} over its units")
                return Carried(torch.full((), label).expand(tuple(shape)))
            labels = labels.narrow(dim, 0, 1) if keeps else labels.select(dim, 0)
        return Carried(labels)

    def _over_places(self, node: fx.Node) -> Any:
        labels, shape = self._labels(node.args[0]), shapes(node)
        for dim in range(-num_places(node), 0):
            if varies(labels, dim):
                self.found.lose(labels, f"{_name(node)} over its units")
                return self._from_outside(node)
            labels = labels.narrow(dim, 0, 1)
        return _each(lambda one: Carried(labels.expand(one)), shape)


def _dim_along(held: Held, place: int, but: int | None = None) -> tuple[int, Tensor] | None:
    """The dimension of a tensor of the state whose index runs along a place of what it has become, and its indices.

    None where there are several. Of dimensions of one entry, which run nowhere, it is that place itself in a convolution's
    weight, in a matrix the last, `but` left out.
    """
    running = [dim for dim, index in enumerate(held.indices) if varies(index, place)]
    if not running and held.indices[0].shape[place] == 1:
        single = [dim for dim, size in enumerate(held.sizes) if size == 1 and dim != but]
        running = [place] if len(held.sizes) > 2 and place in single else single[-1:]
    entries = along(held.indices[running[0]], place) if len(running) == 1 else None
    return None if entries is None else (running[0], entries)


def _name(node: fx.Node) -> str:
    """An operation's name as users know it."""
    return node.target.overloadpacket.__name__.strip("_").removesuffix("_kernel").removesuffix("_forward")


def nothing(shape: Sequence[int]) -> Carried:
    """An activation that carries no unit."""
    return Carried(torch.full((), NONE).expand(tuple(shape)))


def _with(label: int, instead: int, labels: Tensor) -> Tensor:
    """The labels with one replaced."""
    small = compact(labels)
    return torch.where(small == label, instead, small).expand(labels.shape)


def _moved(node: fx.Node, given: Callable[[fx.Node], Tensor]) -> Any:
    """What an operation that only moves numbers makes of other tensors of its inputs' shapes."""
    packet = node.target.overloadpacket
    if RULES[packet] is rules.same:
        return given(node.args[0])
    if packet in (aten.view, aten._unsafe_view, aten.reshape):
        return given(node.args[0]).reshape(tuple(shapes(node)))
    arguments, keywords = map_arg((node.args, node.kwargs), given)
    moved = node.target(*arguments, **keywords)
    return list(moved) if isinstance(moved, tuple | list) else moved


def _each(make: Callable[[Any], Any], values: Any) -> Any:
    """`make` of a value, or of each of a list."""
    return [make(one) for one in values] if isinstance(values, list) else make(values)
