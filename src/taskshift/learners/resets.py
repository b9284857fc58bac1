"""Layers, or the whole net, drawn anew at a switch of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from taskshift.learners.eager import OF_GROUPS
from taskshift.learners.forward import watched_pass
from taskshift.learners.interventions import AtSwitch
from taskshift.learners.part import Memory, Slots, Start, Subject, Switch, Tensors


class HeadReset(AtSwitch):
    """Draw the last layer anew, or set it to zero, at each switch, and forget what the optimizer knows of it.

    The last layer is the module whose output is the net's. After Nikishin et al. 2022.
    """

    def __init__(self, to: Literal["fresh", "zero"] = "fresh"):
        if to not in ("fresh", "zero"):
            raise ValueError(f"to={to!r} is not known; choose one of fresh, zero")
        self.to = to
        self._names: tuple[str, ...] = ()

    def init(self, start: Start) -> Memory:
        head = head_of(start.module, start.example.inputs)
        self._names = tuple(name for name in start.net if name.startswith(f"{head}."))
        if self.to == "zero" and any(".parametrizations." in name for name in self._names):
            raise ValueError(f"the head {head} computes its weight from other parameters, which zeros do not suit; take to=fresh")
        return {}

    def at_switch(self, subject: Subject, context: Switch) -> Subject:
        new = context.fresh() if self.to == "fresh" else {name: torch.zeros_like(subject.net[name]) for name in self._names}
        net = {name: new[name] for name in self._names}
        return subject._replace(net=net, slots=as_at_first(subject.slots, {**subject.net, **net}, self._names, context))


class FullReset(AtSwitch):
    """Draw the whole net anew at each switch, and forget the optimizer's state: each task learnt from scratch."""

    def at_switch(self, subject: Subject, context: Switch) -> Subject:
        fresh = context.fresh()
        return subject._replace(net=fresh, slots=context.first_slots(fresh))


def head_of(net: nn.Module, inputs: Tensor) -> str:
    """The name of the module with parameters whose output is the net's; raises ValueError where there is none."""
    outputs: dict[str, object] = {}
    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: outputs.setdefault(name, output))
        for name, module in net.named_modules()
        if name and (module._parameters or is_parametrized(module))
    ]
    returned = watched_pass(net, inputs, handles)
    found = [name for name, output in outputs.items() if output is returned]
    if not found:
        raise ValueError("no layer's output is the net's own, so there is no head to reset; name the layers in a part of yours")
    return found[0]  # the innermost, whose hook comes first


def as_at_first(slots: Slots, net: Tensors, names: Sequence[str], context: Switch) -> Slots:
    """The optimizer's slots, those of the parameters `names` as before their first step.

    Torch's own optimizers have none then; one that counts its steps for all parameters together makes them in its first step
    alone, and keeps them.
    """
    first = context.first_slots(net)
    return {
        slot: {
            name: first[slot][name] if name in names and name in first.get(slot, {}) else value
            for name, value in of.items()
            if name not in names or name in first.get(slot, {}) or OF_GROUPS in slots
        }
        for slot, of in slots.items()
    }
