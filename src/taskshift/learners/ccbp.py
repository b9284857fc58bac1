"""Continuous continual backprop: every unit is drawn towards a new one, the less useful the further."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from taskshift.learners.interventions import AfterStep
from taskshift.learners.part import Context, Memory, Start, Subject
from taskshift.learners.units import Fresh, Group, fresh_rows, groups_of, incoming_size
from taskshift.quantities import Quantity


class ContinuousContinualBackprop(AfterStep):
    """After every `every`-th step each unit becomes the share α of a new one (continuous continual backprop, ICLR 2026).

    With g the gradient at a unit's incoming weights and y = mean |g| over its mean in the layer, in each step
    u ← `decay` u + (1 − `decay`) y, u = 1 at first. Then α = `rate` sigmoid(−`steepness` (u − 1)),

        w_in ← (1 − α) w_in + α fresh,  bias ← (1 − α) bias,  w_out ← (1 − α) w_out,  u ← (1 − α) u + α,

    and a norm's scale goes to 1, its shift to 0 likewise. What the optimizer remembers stays, and so do running statistics.
    """

    quantities = (
        Quantity("replaced", "shares of units begun anew, added up over all layers", "units", "α of ICLR 2026's CCBP; `rate`"),
    )

    def __init__(self, rate: float = 0.015, every: int = 1000, decay: float = 0.99, steepness: float = 16.0):
        if not 0 <= rate <= 1:
            raise ValueError(f"rate is {rate}; the share of a unit that becomes new lies between 0 and 1")
        if every < 1:
            raise ValueError(f"every is {every}; a number of steps, 1 or more, is expected")
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; running means forget by it, from 0 to below 1")
        if not steepness >= 0:
            raise ValueError(f"steepness is {steepness}; it is 0, where all units are treated alike, or more")
        self.rate, self.every, self.decay, self.steepness = rate, every, decay, steepness
        self.groups: tuple[Group, ...] = ()  # known after `init`

    def settings(self) -> Mapping[str, float]:
        return {"rate": self.rate, "decay": self.decay, "steepness": self.steepness}

    def init(self, start: Start) -> Memory:
        self.groups = groups_of(start)
        self._trained = frozenset(start.trained)
        self._rows = fresh_rows(self.groups, [group.size for group in self.groups], every=self.every)
        return {group.name: group.like(start.net).new_ones(group.size) for group in self.groups}

    def draws(self) -> Mapping[str, Any]:
        return self._rows

    def meanwhile(self, subject: Subject, context: Context) -> Memory:
        """Utilities after the step's gradient."""
        decay, found = context.settings["decay"], {}
        for group in self.groups:
            size = incoming_size(group, context.gradients)
            found[group.name] = torch.lerp(size / size.mean().clamp_min(1e-30), context.memory[group.name], decay)
        return found

    def after_step(self, subject: Subject, context: Context) -> Subject:
        rate, steepness = context.settings["rate"], context.settings["steepness"]
        utilities, net, fresh, told = self.meanwhile(subject, context), dict(subject.net), Fresh(context, self._rows), 0
        for group in self.groups:
            share = rate * torch.sigmoid(steepness * (1 - utilities[group.name]))
            self._mix(group, net, share, fresh)
            utilities[group.name] = torch.lerp(utilities[group.name], torch.ones_like(share), share)
            told = told + share.sum()
        return subject._replace(net=net, memory=utilities, numbers={"replaced": told}, taken=fresh.taken)

    def _mix(self, group: Group, net: dict[str, Tensor], share: Tensor, fresh: Fresh) -> None:
        """The group's units in `net` with a `share` [size] of new ones."""
        numbers = torch.arange(group.size, device=share.device)
        count = torch.full((), group.size, device=share.device)
        values = [(slot, fresh.rows(slot, numbers, count)) for slot in group.drawn]
        values += [(slot, value) for slot, value in group.constants() if slot.tensor in self._trained]
        values += [(consumer.slot, 0.0) for consumer in group.consumers]
        for slot, value in values:
            held = slot.of(net[slot.tensor], group.size)
            own = share.reshape(-1, *[1] * (held.dim() - 1))
            net[slot.tensor] = slot.put(net[slot.tensor], held + own * (value - held))
