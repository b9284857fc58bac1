"""What a unit flow claims, tried on the net: independent of how it was found."""

from __future__ import annotations

import copy

import torch
from torch import nn

from loss_landscape import Slot, UnitFlow, UnitLayer

ODD = {"", "relu", "tanh", "gelu", "silu", "elu", "leaky_relu", "prelu"}
"""Activations that take 0 to 0."""


def own_slots(layer: UnitLayer) -> list[Slot]:
    """What makes the units, and all that holds something for each of them before their first consumer."""
    norms = [slot for norm in layer.norms for slot in (norm.scale, norm.shift, norm.mean, norm.variance) if slot is not None]
    return [layer.incoming, *layer.bias, *norms, *layer.others]


def changed(net: nn.Module, changes: list[tuple[Slot, int, object]]) -> nn.Module:
    """A twin with `change(what a slot holds for its units [size, …])` in each slot."""
    twin = copy.deepcopy(net)
    state = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
    with torch.no_grad():
        for slot, size, change in changes:
            tensor = state[slot.tensor]
            tensor.copy_(slot.put(tensor, change(slot.of(tensor, size))))
    return twin


def zeroed(held):
    return torch.zeros_like(held)


def _only(unit):
    """A change of what is held for this unit alone."""

    def changing(value):
        def change(held):
            held = held.clone()
            held[unit] = value(held[unit])
            return held

        return change

    return changing


def assert_units_can_be_silenced(net: nn.Module, inputs, flow: UnitFlow) -> None:
    """One of a group's units silenced by its consumers: nothing that makes it matters any more, so the consumers are all there.

    And it is as silent as by its own weights, if its activation takes 0 to 0: so the consumers are its alone.
    """
    rng = torch.Generator().manual_seed(0)
    outputs = net(*inputs)
    for group in flow.groups:
        size = group[0].size
        for unit in torch.randperm(size, generator=rng).tolist():
            only = _only(unit)
            silenced = [(c.slot, size, only(zeroed)) for layer in group for c in layer.consumers]
            expected = changed(net, silenced)(*inputs)
            if not torch.equal(expected, outputs):
                break
        else:
            raise AssertionError(f"no unit of {group[0].name} has any influence")
        redrawn = [
            (slot, size, only(lambda held: torch.rand(held.shape, generator=rng, dtype=held.dtype)))
            for layer in group
            for slot in own_slots(layer)
        ]
        if all(norm.kind == "batch" for layer in group for norm in layer.norms):
            torch.testing.assert_close(changed(net, redrawn + silenced)(*inputs), expected, rtol=1e-10, atol=1e-12)
            shifts = [n.shift for layer in group for n in layer.norms if n.shift is not None]
            makers = [slot for layer in group for slot in (layer.incoming, *layer.bias)]
            scales = [n.scale for layer in group for n in layer.norms if n.scale is not None] or makers
            own = [(slot, size, only(zeroed)) for slot in {*scales, *shifts, *(() if shifts else makers)}]
            if {layer.activation for layer in group} <= ODD and (not shifts or all(layer.norms for layer in group)):
                torch.testing.assert_close(changed(net, own)(*inputs), expected, rtol=1e-10, atol=1e-12)


def assert_units_can_be_scaled(net: nn.Module, inputs, flow: UnitFlow, *, groups: int) -> None:
    """ReLU units that come out a times as large and are read 1/a times as strongly are the same units."""
    rng, tried = torch.Generator().manual_seed(1), 0
    for group in flow.groups:
        norms = [norm for layer in group for norm in layer.norms]
        if any(norm.kind != "batch" for norm in norms) or {layer.activation for layer in group} - {"relu", ""}:
            continue
        size, tried = group[0].size, tried + 1
        a = 0.5 + torch.rand(size, generator=rng, dtype=torch.float64)

        def by(factor):
            return lambda held: held * factor.reshape(-1, *[1] * (held.dim() - 1))

        makers = [s for layer in group for s in ((layer.incoming, *layer.bias) if not layer.norms else ())]
        makers += [slot for norm in norms for slot in (norm.scale, norm.shift) if slot is not None]
        changes = [(slot, size, by(a)) for slot in dict.fromkeys(makers)]
        changes += [(slot, size, by(1 / a)) for slot in dict.fromkeys(c.slot for layer in group for c in layer.consumers)]
        torch.testing.assert_close(changed(net, changes)(*inputs), net(*inputs), rtol=1e-9, atol=1e-10)
    assert tried == groups


def assert_units_can_be_permuted(net: nn.Module, inputs, flow: UnitFlow, *, but: str = "") -> None:
    """All layers at once, each group in an order of its own; where one's consumer makes another's units, both in one order.

    The layer called `but` is left out: the units of attention change places within a head alone.
    """
    rng = torch.Generator().manual_seed(2)
    orders: dict[str, torch.Tensor] = {}
    slots: dict[Slot, tuple[int, torch.Tensor]] = {}
    for group in (group for group in flow.groups if group[0].name != but):
        given = [orders[slot.tensor] for layer in group for slot in [layer.incoming] if slot.tensor in orders]
        order = given[0] if given else torch.randperm(group[0].size, generator=rng)
        for layer in group:
            for slot in own_slots(layer):
                slots[slot] = layer.size, order
            for consumer in layer.consumers:
                if consumer.slot.dim == consumer.makes:  # a depthwise convolution: what it makes comes in the same order
                    several = torch.arange(consumer.slot.stride)
                    orders[consumer.slot.tensor] = (order[:, None] * len(several) + several).flatten()
                else:
                    slots[consumer.slot] = layer.size, order
    changes = [(slot, size, lambda held, order=order: held[order]) for slot, (size, order) in slots.items()]
    twin = changed(net, changes)
    assert any(not torch.equal(one, other) for one, other in zip(twin.parameters(), net.parameters(), strict=True))
    torch.testing.assert_close(twin(*inputs), net(*inputs), rtol=1e-9, atol=1e-10)
