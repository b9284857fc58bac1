"""ReDo: units that are dormant beside those of their layer begin anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from taskshift.learners.interventions import AfterStep
from taskshift.learners.part import Context, Memory, Start, Subject
from taskshift.learners.units import Group, activity_of, begun_anew, fresh_rows, groups_of, reads_of, replaced_units


class ReDo(AfterStep):
    """After every `every`-th step, units whose score is `tau` or less begin anew (Sokar et al. 2023).

    A unit's score is its mean |h| over the mean of its layer's, over all examples since the last time and all places of a map.
    New units have fresh incoming weights, bias 0, a norm that does nothing and outgoing weights 0, and the optimizer has
    forgotten them. At `tau` 0 these are the units that were 0 throughout.

    Units that a residual stream adds up are one, place by place.
    """

    quantities = (replaced_units("Sokar et al. 2023; `tau`"),)

    def __init__(self, tau: float = 0.025, every: int = 1000):
        if not tau >= 0:
            raise ValueError(f"tau is {tau}; it is a share of a layer's mean activity, 0 or more")
        if every < 1:
            raise ValueError(f"every is {every}; a number of steps, 1 or more, is expected")
        self.tau, self.every = tau, every
        self.groups: tuple[Group, ...] = ()  # known after `init`

    def settings(self) -> Mapping[str, float]:
        return {"tau": self.tau}

    def init(self, start: Start) -> Memory:
        self.groups = groups_of(start)
        self.reads = reads_of(self.groups)
        self._rows = fresh_rows(self.groups, [group.size for group in self.groups], every=self.every)
        return {group.name: group.like(start.net).new_zeros(group.size) for group in self.groups}

    def draws(self) -> Mapping[str, Any]:
        return self._rows

    def meanwhile(self, subject: Subject, context: Context) -> Memory:
        """Σ |h| by unit since the last time, over examples."""
        count = len(context.batch.targets)
        return {group.name: context.memory[group.name] + count * activity_of(group, context.features) for group in self.groups}

    def after_step(self, subject: Subject, context: Context) -> Subject:
        activity = self.meanwhile(subject, context)
        chosen = [self._dormant(activity[group.name], context) for group in self.groups]
        memory = {name: value.new_zeros(value.shape) for name, value in activity.items()}
        ranks = [mask.cumsum(dim=0) - 1 for mask in chosen]
        done = begun_anew(self.groups, subject, context=context, rows=self._rows, chosen=chosen, ranks=ranks)
        return done._replace(memory=memory)

    @staticmethod
    def _dormant(activity: Tensor, context: Context) -> Tensor:
        return activity <= context.settings["tau"] * activity.mean()
