"""Continual backprop: the least useful of the units that have had their time begin anew, a few at a time."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from taskshift.learners.draws import EveryStep
from taskshift.learners.interventions import AfterStep
from taskshift.learners.part import Context, Memory, Start, Subject, Tensors
from taskshift.learners.units import (
    Group,
    begun_anew,
    fresh_rows,
    groups_of,
    incoming_size,
    outgoing_size,
    reads_of,
    replaced_units,
    values_of,
    with_means_kept,
)

UtilityName = Literal[
    "contribution", "zero_contribution", "adaptable_contribution", "weight", "adaptation", "feature_by_input", "random"
]

RARELY = 1 / 8
"""Units of a layer and step: where fewer are replaced, few draws need to be ready, the same number whatever the rate."""

MOST_PAIRED = 256
"""Units that are compared pair by pair; n² comparisons of more would cost more than sorting."""


class Choice(NamedTuple):
    """Which of a group's units are replaced in a step."""

    chosen: Tensor  # [size], bool
    rank: Tensor  # [size], their order among those that may be replaced
    means: list[Tensor]  # their mean values, at each reading
    memory: Memory  # the group's, with the units chosen as new


class ContinualBackprop(AfterStep):
    """Continual backprop (Dohare et al. 2024), for the units of any net that can be traced.

    With h a unit's values on the step's batch, at all places of a map, and w its weights after the step, every unit has

        f ← η f + (1 − η) mean h,  u ← η u + (1 − η) y,  f̂ = f / (1 − ηᵃ),  û = u / (1 − ηᵃ),  a its age in steps, η = `decay`,

    and y its `utility`:

        contribution            mean |h| · mean |w_out|
        zero_contribution       mean |h − f̂| · mean |w_out|
        adaptable_contribution  mean |h − f̂| · mean |w_out| / mean |w_in|
        weight                  mean |w_out|
        adaptation              1 / mean |w_in|
        feature_by_input        mean |h − f̂| / mean |w_in|
        random                  û is uniform

    Of n units older than `maturity_threshold`, `replacement_rate` · n are replaced in each layer and step, those of the smallest
    û: what is missing to a whole number is kept for later (`accumulate`), or drawn by lot. A new unit has fresh incoming weights,
    bias 0, a norm that does nothing, outgoing weights 0 and age 0, and the optimizer has forgotten all of these.
    With `transfer_bias` the layers after it keep their mean input: w_out f̂ goes into their biases.

    Units that a residual stream adds up are replaced together, place by place.
    """

    quantities = (replaced_units("Dohare et al. 2024; `replacement_rate`"),)

    def __init__(
        self,
        replacement_rate: float = 1e-4,
        maturity_threshold: int = 100,
        decay: float = 0.99,
        utility: UtilityName = "contribution",
        accumulate: bool = True,
        transfer_bias: bool = False,
    ):
        if not 0 <= replacement_rate <= 1:
            raise ValueError(f"replacement_rate is {replacement_rate}; it is a share of a layer's units a step, from 0 to 1")
        if maturity_threshold < 0:
            raise ValueError(f"maturity_threshold is {maturity_threshold}; it is a number of steps, 0 or more")
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; running means forget by it, from 0 to below 1")
        if utility not in get_args(UtilityName):
            raise ValueError(f"utility={utility!r} is not known; choose one of {', '.join(get_args(UtilityName))}")
        self.replacement_rate, self.maturity_threshold, self.decay = replacement_rate, maturity_threshold, decay
        self.utility, self.accumulate, self.transfer_bias = utility, accumulate, transfer_bias
        self.groups: tuple[Group, ...] = ()  # known after `init`

    def settings(self) -> Mapping[str, float]:
        names = ("replacement_rate", "maturity_threshold", "decay")
        return {name: getattr(self, name) for name in names}

    def init(self, start: Start) -> Memory:
        self.groups = groups_of(start)
        self.reads = reads_of(self.groups)
        sizes = [group.size for group in self.groups]
        is_rare = self.accumulate and self.replacement_rate * max(sizes) <= RARELY
        self._rows = fresh_rows(self.groups, [self.most_at_once(size) for size in sizes], rate=RARELY if is_rare else None)
        return {group.name: self._first_memory(group, start.net) for group in self.groups}

    def most_at_once(self, size: int) -> int:
        """How many of a layer's `size` units it replaces in one step at most."""
        return ceil(self.replacement_rate * size) or 1

    def draws(self) -> Mapping[str, Any]:
        lots = {} if self.accumulate else {"lots": EveryStep((len(self.groups),), "uniform")}
        random = {f"utility of {group.name}": EveryStep((group.size,), "uniform") for group in self.groups}
        return {**self._rows, **lots, **(random if self.utility == "random" else {})}

    def after_step(self, subject: Subject, context: Context) -> Subject:
        choices = [self._choice(number, subject.net, context) for number in range(len(self.groups))]
        if self.transfer_bias:  # before any unit begins anew: a new one's bias is 0, whatever it was given
            for group, choice in zip(self.groups, choices, strict=True):
                subject = subject._replace(net=with_means_kept(group, subject.net, choice.chosen, choice.means))
        chosen, places = [choice.chosen for choice in choices], [choice.rank for choice in choices]
        done = begun_anew(self.groups, subject, context=context, rows=self._rows, chosen=chosen, ranks=places)
        memory = {group.name: choice.memory for group, choice in zip(self.groups, choices, strict=True)}
        return done._replace(memory=memory)

    # -- one group --------------------------------------------------------------------------------------------------

    def _first_memory(self, group: Group, net: Tensors) -> dict[str, Tensor]:
        like = group.like(net)
        owed = {"owed": like.new_zeros(())} if self.accumulate else {}
        zeros = {name: like.new_zeros(group.size) for name in ("age", "utility")}
        return {**zeros, "mean": like.new_zeros(len(group.readings), group.size), **owed}

    def _choice(self, number: int, net: Tensors, context: Context) -> Choice:
        group, settings = self.groups[number], context.settings
        before, decay, values = context.memory[group.name], settings["decay"], values_of(group, context.features)
        age = before["age"] + 1
        correction = -torch.expm1(age * decay.log())  # 1 − ηᵃ
        mean = decay * before["mean"] + (1 - decay) * torch.stack([value.mean(dim=1) for value in values])
        means = list(mean / correction)
        utility = decay * before["utility"] + (1 - decay) * self._instantaneous(group, net, values, means)
        order = context.draws[f"utility of {group.name}"] if self.utility == "random" else utility / correction
        eligible = age > settings["maturity_threshold"]
        due = settings["replacement_rate"] * eligible.sum() + (
            before["owed"] if self.accumulate else context.draws["lots"][number]
        )
        most = self.most_at_once(group.size)
        rank, count = ranks(torch.where(eligible, order, torch.inf), at_most=most), due.floor().clamp(max=most)  # 1 + 0.99… is 2
        chosen = eligible & (rank < count)
        kept = {"age": age, "utility": utility, "mean": mean}
        memory = {name: torch.where(chosen, 0.0, value) for name, value in kept.items()}
        return Choice(chosen, rank, means, memory | ({"owed": due - count} if self.accumulate else {}))

    def _instantaneous(self, group: Group, net: Tensors, values: list[Tensor], means: list[Tensor]) -> Tensor:
        """The utility y of the step, [size]."""
        if self.utility == "random":
            return torch.zeros_like(means[0])
        if self.utility in ("weight", "adaptation"):
            return outgoing_size(group, net) if self.utility == "weight" else 1 / incoming_size(group, net)
        if self.utility == "contribution":
            return outgoing_size(group, net, [value.abs().mean(dim=1) for value in values])
        apart = [(value - mean[:, None]).abs().mean(dim=1) for value, mean in zip(values, means, strict=True)]
        if self.utility == "feature_by_input":
            return torch.stack(apart).mean(dim=0) / incoming_size(group, net)
        found = outgoing_size(group, net, apart)
        return found / incoming_size(group, net) if self.utility == "adaptable_contribution" else found


def ranks(values: Tensor, *, at_most: int | None = None) -> Tensor:
    """The place of each value [n] when they are sorted, the smallest first, equal ones in their order; a NaN counts as infinite.

    Where the first `at_most` places alone are asked for, the others are any from there on. Few values are compared pair by pair,
    which a compiler fuses with what is around it: sorting is a call of its own.
    """
    values = torch.where(values == values, values, torch.inf)  # no `isnan`: Inductor has it number by number
    if at_most == 1:
        return (torch.arange(len(values), device=values.device) != values.argmin()).long()
    if len(values) > MOST_PAIRED:
        return values.argsort(stable=True).argsort()
    one, other = values[:, None], values[None, :]
    is_first = torch.ones(len(values), len(values), dtype=torch.bool, device=values.device).tril(-1)  # of equal ones
    return ((other < one) | ((other == one) & is_first)).to(values.dtype).sum(dim=1).long()
