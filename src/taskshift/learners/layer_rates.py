"""Learning rates that depend on how deep a layer lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from taskshift.faults import Fault
from taskshift.learners.depths import depths_of
from taskshift.learners.interventions import AtSwitch, StepScaling
from taskshift.learners.part import Context, Memory, Slots, Start, Subject, Switch, Tensors


class LayerRates(StepScaling, AtSwitch):
    """In step t a layer at depth d, 0 for the first and 1 for the last, has η · `ratio`ᵈ⁻¹ · exp(−k t) as its learning rate.

    k is `decay` · (1 − d) with `faster="earlier"`, so that the first layer settles soonest, and `decay` · d with "later"; t
    counts the run's steps, or with `per_task` those of the task. The first layer steps once in `interval` steps, the last in
    every one, those between as often as lies between; between its turns a layer and what the optimizer remembers of it stay as
    they are.

    The step that the optimizer took is scaled, which is what another learning rate does for any that multiplies by it.
    """

    def __init__(
        self,
        ratio: float = 1.0,
        decay: float = 0.0,
        faster: Literal["earlier", "later"] = "earlier",
        interval: int = 1,
        per_task: bool = False,
    ):
        if not ratio > 0:
            raise ValueError(f"ratio is {ratio}; the last layer's learning rate over the first's is above 0")
        if not decay >= 0:
            raise ValueError(f"decay is {decay}; a rate of decay a step is 0 or more")
        if faster not in ("earlier", "later"):
            raise ValueError(f"faster={faster!r} is not known; choose one of earlier, later")
        if interval < 1:
            raise ValueError(f"interval is {interval}; it is a number of steps, 1 or more")
        self.ratio, self.decay, self.faster, self.interval, self.per_task = ratio, decay, faster, interval, per_task
        self._depths: Mapping[str, float] = {}  # known after `init`

    def settings(self) -> Mapping[str, float]:
        return {"ratio": self.ratio, "decay": self.decay}

    def init(self, start: Start) -> Memory:
        self._depths = depths_of(start.module, start.example.inputs, start.trained)
        device = next(iter(start.net.values())).device
        return {"steps": torch.zeros((), dtype=torch.int64, device=device)}

    def at_switch(self, subject: Subject, context: Switch) -> Subject:
        if not self.per_task:
            return subject
        return subject._replace(memory={"steps": torch.zeros_like(subject.memory["steps"])})

    def after_step(self, subject: Subject, context: Context) -> Subject:
        steps = subject.memory["steps"]
        shares = {depth: self._share(depth, steps, context.settings) for depth in set(self._depths.values())}
        turns = {depth: (steps + 1) % self._interval(depth) == 0 for depth in shares}
        net = dict[str, Tensor]()
        for name, depth in self._depths.items():
            before = context.net_before[name]
            net[name] = torch.where(turns[depth], torch.lerp(before, subject.net[name], shares[depth].to(before.dtype)), before)
        slots = subject.slots if self.interval == 1 else self._slots_of_turns(subject.slots, context.slots_before, turns)
        return subject._replace(net=net, slots=slots, memory={"steps": steps + 1})

    def _share(self, depth: float, steps: Tensor, settings: Tensors) -> Tensor:
        """A layer's learning rate over the optimizer's."""
        slowness = 1 - depth if self.faster == "earlier" else depth
        return settings["ratio"] ** (depth - 1) * torch.exp(-settings["decay"] * slowness * steps)

    def _interval(self, depth: float) -> int:
        return round(1 + (self.interval - 1) * (1 - depth))

    def _slots_of_turns(self, after: Slots, before: Slots, turns: Mapping[float, Tensor]) -> Slots:
        found: dict[str, dict[str, Tensor]] = {}
        for slot, of in after.items():
            for name, value in of.items():
                if name not in self._depths or not isinstance(value, Tensor):
                    raise Fault(
                        f"layer_rates: with interval={self.interval} layers keep what the optimizer remembers of them, but this "
                        f"one's {slot} is not a tensor for each parameter; give interval=1, or another optimizer, such as adam"
                    )
                turn = turns[self._depths[name]]
                if name in before.get(slot, {}):
                    found.setdefault(slot, {})[name] = torch.where(turn, value, before[slot][name])
                elif turn:  # one of torch's own, which runs eager: it makes its slots at a parameter's first step
                    found.setdefault(slot, {})[name] = value
        return found
