"""Each layer's units with all that makes them, what they go through, and all that reads them, in any net that can be traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, fx, nn

from loss_landscape.graphs.tracing import UntraceableError, traced
from loss_landscape.nested import tensors_in
from loss_landscape.objective.functional_net import undisturbed
from loss_landscape.objective.private_copy import evaluating_clone
from loss_landscape.units.assembly import Piece, pieces_of, runs
from loss_landscape.units.graph import as_function, require_net_and_inputs
from loss_landscape.units.labels import along, varies
from loss_landscape.units.origins import Carried, Origins, Use, origins_of
from loss_landscape.units.rules import OUTPUT

Watch = Callable[[Callable[[], Any], nn.Module], tuple[Any, Sequence[Tensor]]]
"""(forward pass, its net) → (what it gave out, tensors that were seen in it)"""

BY_HAND = "declare its units by hand: give the net a method unit_layers() that returns a list of loss_landscape.UnitLayer"


@dataclass(frozen=True)
class Slot:
    """Where a tensor holds a layer's units: along `dim` from `offset` on, `stride` places for each.

    >>> weight = torch.arange(6.0).reshape(1, 6)
    >>> Slot("weight", dim=1, offset=2, stride=2).of(weight, 2)  # what it holds for each of 2 units
    tensor([[[2., 3.]],
    <BLANKLINE>
            [[4., 5.]]])
    """

    tensor: str
    dim: int
    offset: int = 0
    stride: int = 1

    def of(self, tensor: Tensor, size: int) -> Tensor:
        """What the tensor holds for each of `size` units, [size, …], a view."""
        part = tensor.narrow(self.dim, self.offset, size * self.stride)
        return part.unflatten(self.dim, (size, self.stride)).movedim(self.dim, 0)

    def put(self, tensor: Tensor, values: Tensor) -> Tensor:
        """A tensor that holds these `values` [size, …] for the units, and all else as `tensor`."""
        part = values.movedim(0, self.dim).flatten(self.dim, self.dim + 1)
        length, end = tensor.shape[self.dim], self.offset + part.shape[self.dim]
        if part.shape[self.dim] == length:
            return part
        before, after = tensor.narrow(self.dim, 0, self.offset), tensor.narrow(self.dim, end, length - end)
        return torch.cat([before, part, after], dim=self.dim)

    def along(self, values: Tensor, length: int) -> Tensor:
        """Units' `values` [size] at their places of a dimension of this length, 0 elsewhere."""
        placed = values[:, None].expand(-1, self.stride).flatten()
        rest = length - self.offset - len(placed)
        return nn.functional.pad(placed, (self.offset, rest)) if self.offset or rest else placed


@dataclass(frozen=True)
class Norm:
    """What a norm layer holds for units: `scale`, `shift`, running `mean` and `variance`.

    By `kind`, a "batch" norm takes each unit by itself, a "layer" or "group" norm several together.

    >>> Norm("layer", scale=Slot("1.weight", 0)).mean is None
    True
    """

    kind: str
    scale: Slot | None = None
    shift: Slot | None = None
    mean: Slot | None = None
    variance: Slot | None = None


@dataclass(frozen=True)
class Consumer:
    """A weight that reads units: the `slot` where it holds them, and in `reading` where its module's input does.

    `reading` is None where they are given to no module that is called once.

    Dimension `makes` of the weight counts what it makes of them. `bias` is added to that; where there is none, `mean` is the
    running mean of the batch norm that follows.

    >>> Consumer(Slot("2.weight", 1), Slot("2", 1), makes=0, bias="2.bias").reading.tensor
    '2'
    """

    slot: Slot
    reading: Slot | None = None
    makes: int | None = None
    bias: str | None = None
    mean: str | None = None


@dataclass(frozen=True)
class UnitLayer:
    """The `size` units that the weight `incoming` makes: its outputs, channel by channel, before they enter any sum.

    `name` is its module's, with the places where they are a part of its outputs. `bias` is added to them, `norms` they go
    through, `others` are other parameters that hold a number for each unit; `activation` is the first that its values go
    through, by torch's name. `meets` are the layers whose units are added to these, or multiplied with them, before all
    `consumers` read them; unit i meets unit i.

    >>> layer = UnitLayer("0", 3, incoming=Slot("0.weight", 0), consumers=(Consumer(Slot("2.weight", 1)),))
    >>> layer.meets
    ()
    """

    name: str
    size: int
    incoming: Slot
    bias: tuple[Slot, ...] = ()
    norms: tuple[Norm, ...] = ()
    others: tuple[Slot, ...] = ()
    activation: str = ""
    consumers: tuple[Consumer, ...] = ()
    meets: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class UnitFlow:
    """A net's hidden units, layer by layer in the order of the forward pass; `left_out` says why which could not be followed.

    >>> UnitFlow((UnitLayer("0", 3, Slot("0.weight", 0)),))
    UnitFlow(layers of 3 units, 0 left out)
    """

    layers: tuple[UnitLayer, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[tuple[UnitLayer, ...], ...]:
        """The layers that must be changed together, unit by unit, as their consumers read them together; most are alone."""
        found: list[list[UnitLayer]] = []
        for layer in self.layers:
            group = next((known for known in found if known[0].name in layer.meets), None)
            found.append([layer]) if group is None else group.append(layer)
        return tuple(map(tuple, found))

    def __repr__(self) -> str:
        sizes = ", ".join(str(layer.size) for layer in self.layers)
        return f"UnitFlow(layers of {sizes} units, {len(self.left_out)} left out)"


@runtime_checkable
class DeclaresUnits(Protocol):
    """A net that says itself what its units are."""

    def unit_layers(self) -> Sequence[UnitLayer]:
        """Its layers, in the order of the forward pass."""


def unit_flow(model: nn.Module, inputs: Any) -> UnitFlow:
    """The units of every layer of the net `model`, with what makes and what reads them, by tracing it in eval mode on `inputs`.

    `inputs` are as a surface's: a tensor, a tuple of arguments, or a dict; two examples are enough. Units are followed through
    flattening, residual sums, norms, poolings, depthwise convolutions, concatenations, cuts and attention. What the net gives out
    is no unit; what meets an operation that cannot be followed is in `left_out`, with the reason. A net with a method
    `unit_layers` is taken at its word. Raises ValueError where no unit can be followed, UntraceableError for a net that is no
    fixed graph.

    >>> flow = unit_flow(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), torch.ones(1, 2))
    >>> flow.layers[0].incoming, flow.layers[0].activation
    (Slot(tensor='0.weight', dim=0, offset=0, stride=1), 'relu')
    >>> flow.layers[0].consumers[0].slot
    Slot(tensor='2.weight', dim=1, offset=0, stride=1)
    """
    require_net_and_inputs(model, inputs)
    if isinstance(model, DeclaresUnits):
        return UnitFlow(tuple(model.unit_layers()))
    trace = _Trace.of(model, inputs)
    pieces = pieces_of(trace.origins)
    layers = [trace.layer(piece, pieces) for piece in pieces if not piece.lost]
    left_out = {piece.name: piece.lost for piece in pieces if piece.lost and piece.lost != OUTPUT}
    if not layers:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items()) or "it has no hidden layer"
        raise ValueError(f"no units of this net can be followed ({reasons}); {BY_HAND}")
    return UnitFlow(tuple(layers), left_out)


def followed(model: nn.Module, inputs: Any, watch: Watch) -> tuple[Origins, Mapping[fx.Node, Any], list[fx.Node]]:
    """What is found of a net's units by tracing it, of each node of its graph, and the nodes of the tensors that `watch` saw.

    The net is a copy in eval mode. Raises `UntraceableError` for one that is no fixed graph.
    """
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    tensors, net, num_seen = tensors_in(inputs), evaluating_clone(model), 0
    call = as_function(net, tuple(state), inputs)

    def function(*held: Tensor) -> Any:
        nonlocal num_seen
        outputs, seen = watch(lambda: call(*held), net)
        num_seen = len(seen)
        return [*tensors_in(outputs), *seen]

    with undisturbed(tensors[0].device), torch.no_grad():
        try:
            graph = traced(function, [*state.values(), *tensors])
        except UntraceableError as error:
            raise UntraceableError(f"{error}: no fixed graph of operations to follow its units in; {BY_HAND}") from error
    origins, known = origins_of(graph, tuple(state))
    (last,) = (node for node in graph.graph.nodes if node.op == "output")
    outputs, seen = last.args[0][: len(last.args[0]) - num_seen], last.args[0][len(last.args[0]) - num_seen :]
    for node in outputs:
        if isinstance(known[node], Carried):
            origins.lose(known[node].labels, OUTPUT)
    return origins, known, list(seen)


@dataclass(frozen=True, eq=False)
class _Trace:
    """A traced net's units, and the labels of what its modules are given."""

    origins: Origins
    given: Mapping[str, tuple[str, Tensor]]  # to each module that holds tensors and is called once; the first given the same

    @classmethod
    def of(cls, model: nn.Module, inputs: Any) -> _Trace:
        names: list[str] = []

        def watch(forward: Callable[[], Any], net: nn.Module) -> tuple[Any, list[Tensor]]:
            with _given_to(net) as given:
                outputs = forward()
            names[:] = given
            return outputs, list(given.values())

        origins, known, nodes = followed(model, inputs, watch)
        seen = dict(zip(names, nodes, strict=True))
        first = {node: name for name, node in reversed(seen.items())}
        carried = {name: known[node] for name, node in seen.items() if isinstance(known[node], Carried)}
        return cls(origins, {name: (first[seen[name]], one.labels) for name, one in carried.items()})

    def layer(self, piece: Piece, pieces: Sequence[Piece]) -> UnitLayer:
        """What is known of a piece of a layer."""
        mine = self.origins.uses_by_layer[piece.number]
        uses = [(use, offset, stride) for use in mine for offset, stride in piece.runs(self.origins, use)]

        def slots(*roles: str) -> list[tuple[Use, Slot]]:
            return [(use, Slot(use.tensor, use.dim, offset, stride)) for use, offset, stride in uses if use.role in roles]

        return UnitLayer(
            piece.name,
            piece.size,
            Slot(piece.made.tensor, piece.made.dim, piece.start),
            tuple(slot for _, slot in slots("bias")),
            _norms(slots("scale", "shift", "mean", "variance")),
            tuple(slot for _, slot in slots("other")),
            self.origins.activation((piece.number, piece.start)),
            tuple(self._consumer(piece, use, slot) for use, slot in slots("reads")),
            tuple(other.name for other in pieces if other.group == piece.group and other is not piece),
        )

    def _consumer(self, piece: Piece, use: Use, slot: Slot) -> Consumer:
        made = None if use.makes is None else self.origins.made[use.makes]
        made_labels = () if made is None else tuple(range(made.first, made.first + made.size))
        held = [one for one in self.origins.uses if made_labels and one.labels == made_labels]
        bias = next((one.tensor for one in held if one.role == "bias"), None)
        mean = next((one.tensor for one in held if one.role == "mean" and bias is None), None)
        return Consumer(slot, self._reading(piece, use, slot), None if made is None else made.dim, bias, mean)

    def _reading(self, piece: Piece, use: Use, slot: Slot) -> Slot | None:
        """Where the input of a consumer's module holds the units."""
        module, labels = self.given.get(use.tensor.rpartition(".")[0], ("", None))
        if labels is None:
            return None
        running = [dim for dim in range(labels.dim()) if varies(labels, dim)]
        dim = running[0] if running else labels.dim() - 1 if use.dim == labels.dim() - 1 else 1
        entries = along(labels, dim)
        inputs = None if entries is None else runs(piece.places(self.origins, entries.tolist()), piece.size)
        own = piece.runs(self.origins, use)
        if not inputs or len(inputs) != len(own):
            return None
        return Slot(module, dim, *inputs[own.index((slot.offset, slot.stride))])


def _norms(held: Sequence[tuple[Use, Slot]]) -> tuple[Norm, ...]:
    """Norm layers put together from what they hold."""
    found: dict[tuple[str, str, int], dict[str, Slot]] = {}
    for use, slot in held:
        found.setdefault((use.norm, use.tensor.rpartition(".")[0], slot.offset), {})[use.role] = slot
    return tuple(Norm(kind, **slots) for (kind, _, _), slots in found.items())


@contextmanager
def _given_to(net: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Inside, the first tensor that each module of a net which holds tensors is given, of those that are called once."""
    given: dict[str, Tensor] = {}
    several: set[str] = set()

    def see(name: str, inputs: tuple[Any, ...]) -> None:
        if name in given or name in several:
            several.add(name)
            given.pop(name, None)
        elif inputs and isinstance(inputs[0], Tensor):
            given[name] = inputs[0]

    holders = [(name, module) for name, module in net.named_modules() if any(True for _ in module.parameters(recurse=False))]
    hooks = [module.register_forward_pre_hook(lambda _, inputs, name=name: see(name, inputs)) for name, module in holders]
    try:
        yield given
    finally:
        for hook in hooks:
            hook.remove()
