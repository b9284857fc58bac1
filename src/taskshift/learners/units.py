"""Hidden units as interventions see them: what they do, what they weigh, and how they are made as new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loss_landscape import Consumer, Slot, UnitLayer, unit_flow
from taskshift.faults import Fault
from taskshift.learners.draws import FreshRows
from taskshift.learners.part import Context, Start, Subject, Tensors, input_of
from taskshift.quantities import Quantity


@dataclass(frozen=True)
class Group:
    """Units that are replaced together: those of one layer, or of all that a residual stream adds up, place by place."""

    layers: tuple[UnitLayer, ...]
    frozen: frozenset[str] = frozenset()  # parameters that are not trained, which stay as they are

    @property
    def name(self) -> str:
        return self.layers[0].name

    @property
    def size(self) -> int:
        return self.layers[0].size

    @property
    def drawn(self) -> list[Slot]:
        """Where there are weights to be drawn anew: what makes the units, and what else holds a number for each."""
        return [slot for layer in self.layers for slot in (layer.incoming, *layer.others) if slot.stride == 1]

    @property
    def consumers(self) -> list[Consumer]:
        """All that read the units, each once."""
        return list(dict.fromkeys(consumer for layer in self.layers for consumer in layer.consumers))

    @property
    def readings(self) -> list[Slot]:
        """The inputs of consumers in which the units' values lie, each once."""
        return list(dict.fromkeys(consumer.reading for consumer in self.consumers))

    def like(self, net: Tensors) -> Tensor:
        """A tensor of the device and dtype that its units have."""
        return net[self.layers[0].incoming.tensor]

    def constants(self) -> list[tuple[Slot, float]]:
        """What a new unit begins with that is not drawn: no bias, a norm that does nothing."""
        found = [(slot, 0.0) for layer in self.layers for slot in layer.bias]
        for norm in (norm for layer in self.layers for norm in layer.norms):
            begins = ((norm.scale, 1.0), (norm.shift, 0.0), (norm.mean, 0.0), (norm.variance, 1.0))
            found += [(slot, value) for slot, value in begins if slot is not None]
        return list(dict.fromkeys((slot, value) for slot, value in found if slot.tensor not in self.frozen))


def groups_of(start: Start) -> tuple[Group, ...]:
    """The groups whose weights are trained and whose values can be read. Raises ValueError where there are none."""
    flow = unit_flow(start.module, start.example.inputs)
    frozen = frozenset(name for name, _ in start.module.named_parameters()) - set(start.trained)
    found, why = [], dict(flow.left_out)
    for layers in flow.groups:
        group = Group(layers, frozen)
        tensors = {slot.tensor for slot in [*group.drawn, *(consumer.slot for consumer in group.consumers)]}
        if not tensors <= set(start.trained):
            why[group.name] = "some of its weights are frozen"
        elif None in group.readings:
            why[group.name] = "its values go into no module that is called once a pass"
        else:
            found.append(group)
    if not found:
        raise ValueError(
            "no units of this net can be replaced: " + "; ".join(f"{name}: {reason}" for name, reason in why.items())
        )
    return tuple(found)


def reads_of(groups: Sequence[Group]) -> tuple[str, ...]:
    """What a part that sees these units' values names in `reads`."""
    return tuple(dict.fromkeys(input_of(reading.tensor) for group in groups for reading in group.readings))


def values_of(group: Group, features: Tensors) -> list[Tensor]:
    """What the units gave, at each of the group's readings [size, n]: over all examples and places."""
    return [reading.of(features[input_of(reading.tensor)], group.size).flatten(1) for reading in group.readings]


def activity_of(group: Group, features: Tensors) -> Tensor:
    """Mean |h| of each unit over all examples and places, [size]; over the readings where there are several."""
    values = values_of(group, features)
    return sum(value.abs().mean(dim=1) for value in values) / len(values)


def incoming_size(group: Group, net: Tensors) -> Tensor:
    """Mean |w| over each unit's incoming weights, [size]."""
    weights = [layer.incoming.of(net[layer.incoming.tensor], group.size).flatten(1) for layer in group.layers]
    return torch.cat(weights, dim=1).abs().mean(dim=1)


def outgoing_size(group: Group, net: Tensors, activity: Sequence[Tensor] | None = None) -> Tensor:
    """Mean |w| over each unit's outgoing weights, [size], each times the `activity` [size] at the reading that it takes."""
    total, count = 0, 0
    for consumer in group.consumers:
        weights = consumer.slot.of(net[consumer.slot.tensor], group.size).flatten(1)
        sizes = weights.abs().sum(dim=1)
        total = total + (sizes if activity is None else sizes * activity[group.readings.index(consumer.reading)])
        count += weights.shape[1]
    return total / count


class Fresh:
    """Weights drawn anew for one step, for one group of units after the other."""

    def __init__(self, context: Context, wanted: Mapping[str, FreshRows]):
        self.context, self.wanted = context, wanted
        self.taken = {name: torch.zeros_like(context.taken[name]) for name in wanted}

    def rows(self, slot: Slot, rank: Tensor, count: Tensor) -> Tensor:
        """The next `count` draws, the unit of rank r [size] given number r: [size, …] as the slot holds them."""
        most = self.wanted[slot.tensor].at_most
        place = (self.taken[slot.tensor] + rank).clamp(max=most - 1)
        self.taken[slot.tensor] = self.taken[slot.tensor] + count
        rows = self.context.rows(slot.tensor, most)
        return (rows.expand(len(rank), *rows.shape[1:]) if most == 1 else rows[place]).unsqueeze(slot.dim + 1)


def fresh_rows(
    groups: Sequence[Group], at_most: Sequence[int], *, every: int = 1, rate: float | None = None
) -> dict[str, FreshRows]:
    """The draws of a part that replaces up to so many units of each group after every `every`-th step.

    Over many steps it replaces no more than `rate` units of each group a step, where that is given.
    """
    found: dict[str, FreshRows] = {}
    for group, most in zip(groups, at_most, strict=True):
        for slot in group.drawn:
            other = found.get(slot.tensor, FreshRows(slot.tensor, 0, rate=0.0))
            usual = None if rate is None else other.rate + rate
            found[slot.tensor] = FreshRows(slot.tensor, other.at_most + most, slot.dim, every, usual)
    return found


def replaced(group: Group, subject: Subject, chosen: Tensor, rank: Tensor, fresh: Fresh) -> Subject:
    """The net and slots with the `chosen` units [size] drawn anew and read by nobody yet: their outgoing weights are 0.

    The unit of `rank` r gets the r-th of the next draws. What the optimizer remembers of all these weights becomes 0, for Adam
    the count of steps as well. Raises Fault for an optimizer that remembers them together, in matrices of its own.
    """
    net, slots = dict(subject.net), {slot: dict(of) for slot, of in subject.slots.items()}
    count = chosen.sum()
    values = [(slot, fresh.rows(slot, rank, count)) for slot in group.drawn]
    values += [*group.constants(), *((consumer.slot, 0.0) for consumer in group.consumers)]
    for slot, value in values:
        net[slot.tensor] = _where(chosen, value, slot, net[slot.tensor])
        for kept, of in slots.items():
            if slot.tensor in of and _is_by_weight(kept, of[slot.tensor], slot.tensor, net[slot.tensor]):
                of[slot.tensor] = _where(chosen, 0.0, slot, of[slot.tensor])
    return subject._replace(net=net, slots=slots)


def begun_anew(
    groups: Sequence[Group],
    subject: Subject,
    *,
    context: Context,
    rows: Mapping[str, FreshRows],
    chosen: Sequence[Tensor],
    ranks: Sequence[Tensor],
) -> Subject:
    """The subject with each group's `chosen` units [size] made as new by draws of their `ranks`; it tells how many they are."""
    fresh = Fresh(context, rows)
    for group, mask, rank in zip(groups, chosen, ranks, strict=True):
        subject = replaced(group, subject, mask, rank, fresh)
    count = sum(mask.sum() for mask in chosen).to(groups[0].like(subject.net).dtype)
    return subject._replace(numbers={"replaced": count}, taken=fresh.taken)


def replaced_units(source: str) -> Quantity:
    """What a part that makes units as new tells of them."""
    return Quantity("replaced", "units begun anew, over all layers", "units", source, "units begun anew in an epoch")


def with_means_kept(group: Group, net: Tensors, chosen: Tensor, means: Sequence[Tensor]) -> dict[str, Tensor]:
    """The net whose consumers' outputs keep their mean when the `chosen` units [size] fall silent.

    `means` [size] are the units' mean values at each reading. What they gave on average goes into the consumer's bias; where it
    has none and a batch norm follows, out of that norm's running mean; else, or where it is frozen, nowhere. At the padded rim of
    a map it is too much.
    """
    found = dict(net)
    for consumer in group.consumers:
        slot, weight = consumer.slot, found[consumer.slot.tensor]
        if consumer.makes is None or consumer.bias is consumer.mean is None or consumer.bias in group.frozen:
            continue
        mean = torch.where(chosen, means[group.readings.index(consumer.reading)], 0.0)
        shape = [1] * weight.dim()
        shape[slot.dim] = -1
        given = weight * slot.along(mean, weight.shape[slot.dim]).reshape(shape)
        given = given.movedim(consumer.makes, 0).flatten(1).sum(dim=1)
        if consumer.bias is not None:
            found[consumer.bias] = found[consumer.bias] + given
        else:
            found[consumer.mean] = found[consumer.mean] - given
    return found


def _is_by_weight(kept: str, value: object, name: str, weight: Tensor) -> bool:
    """Whether an optimizer's slot has a number for each weight, not one for many; Fault where it mixes them."""
    if isinstance(value, Tensor) and value.shape == weight.shape:
        return True
    if isinstance(value, Tensor) and (
        value.dim() == 0
        or (value.dim() == weight.dim() and all(one in (1, n) for one, n in zip(value.shape, weight.shape, strict=True)))
    ):
        return False
    raise Fault(
        f"units cannot be begun anew with this optimizer: its {kept} of {name} mixes the weights of several units, so that it "
        "cannot forget one of them; take another, such as learner/optimizer=adam"
    )


def _where(chosen: Tensor, value: Tensor | float, slot: Slot, tensor: Tensor) -> Tensor:
    """The tensor with this value for the chosen units."""
    held = slot.of(tensor, len(chosen))
    return slot.put(tensor, torch.where(chosen.reshape(-1, *[1] * (held.dim() - 1)), value, held))
