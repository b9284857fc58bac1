"""Shrink and perturb towards a net that is drawn anew."""

from __future__ import annotations

from collections.abc import Mapping

from taskshift.learners.interventions import AtSwitch
from taskshift.learners.part import Memory, Start, Subject, Switch


class ShrinkAndPerturb(AtSwitch):
    """θ ← shrink · θ + perturb · φ at each switch, φ a net that is drawn as the run's own was (Ash and Adams 2020).

    Trainable parameters alone; the optimizer's state and running statistics stay.
    """

    def __init__(self, shrink: float, perturb: float):
        if not 0 <= shrink <= 1:
            raise ValueError(f"shrink is {shrink}; the share of the parameters that stays lies between 0 and 1")
        if not perturb >= 0:
            raise ValueError(f"perturb is {perturb}; the share of the new net is 0 or more")
        self.shrink, self.perturb = shrink, perturb
        self._trained: tuple[str, ...] = ()

    def settings(self) -> Mapping[str, float]:
        return {"shrink": self.shrink, "perturb": self.perturb}

    def init(self, start: Start) -> Memory:
        self._trained = start.trained
        return {}

    def at_switch(self, subject: Subject, context: Switch) -> Subject:
        fresh, by = context.fresh(), context.settings
        mixed = {}
        for name in self._trained:
            old = subject.net[name]
            mixed[name] = by["shrink"].to(old.dtype) * old + by["perturb"].to(old.dtype) * fresh[name]
        return subject._replace(net=mixed)
