"""Self-normalised resets: a unit that is silent for longer than it used to be begins anew."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, floor, log2
from typing import Any

import torch
from torch import Tensor

from taskshift.learners.cbp import ranks
from taskshift.learners.interventions import AfterStep
from taskshift.learners.part import Context, Memory, Start, Subject, Tensors
from taskshift.learners.units import Group, begun_anew, fresh_rows, groups_of, reads_of, replaced_units, values_of

BINS_AN_OCTAVE = 4
EDGE = 1e-3  # of a bin, so that powers of two fall into the bin that they begin, however log2 rounds
MOST_AT_ONCE = 1 / 64  # of a layer


class SelfNormalizedResets(AfterStep):
    """A unit silent for T examples begins anew, T the quantile 1 − `eta` of the times between its firings.

    After Farias and Jozefiak 2025. A unit fires on an example where its value is above 0, at any place of a map. Times between
    firings are counted by example, also within a batch, in bins of a quarter of an octave. After each `window` steps T becomes
    the quantile of those seen in the window, where that is smaller, else `expansion` times T; it lies within `shortest` and
    `longest`, where it begins. A unit without any keeps its T. In a step at most a sixty-fourth of a layer, rounded up, begins
    anew, those longest overdue first.
    """

    quantities = (replaced_units("Farias and Jozefiak 2025; `eta`"),)

    def __init__(self, eta: float = 0.02, window: int = 1000, expansion: float = 2.0, shortest: int = 100, longest: int = 20_000):
        if not 0 < eta < 1:
            raise ValueError(f"eta is {eta}; the share of silences that are too long lies between 0 and 1")
        if window < 1:
            raise ValueError(f"window is {window}; a number of steps, 1 or more, is expected")
        if not expansion >= 1:
            raise ValueError(f"expansion is {expansion}; thresholds grow by it, and it is 1 or more")
        if not 1 <= shortest <= longest:
            raise ValueError(f"shortest is {shortest} and longest {longest}; 1 ≤ shortest ≤ longest are numbers of examples")
        self.eta, self.window, self.expansion, self.shortest, self.longest = eta, window, expansion, shortest, longest
        self.num_bins = floor(BINS_AN_OCTAVE * log2(longest) + EDGE) + 1
        self.groups: tuple[Group, ...] = ()  # known after `init`

    def settings(self) -> Mapping[str, float]:
        return {name: getattr(self, name) for name in ("eta", "window", "expansion", "shortest", "longest")}

    def init(self, start: Start) -> Memory:
        self.groups = groups_of(start)
        self.reads = reads_of(self.groups)
        self._most = [ceil(group.size * MOST_AT_ONCE) for group in self.groups]
        self._rows = fresh_rows(self.groups, self._most)
        return {group.name: self._first_memory(group, start.net) for group in self.groups}

    def draws(self) -> Mapping[str, Any]:
        return self._rows

    def after_step(self, subject: Subject, context: Context) -> Subject:
        memory, chosen, places = {}, [], []
        for group, most in zip(self.groups, self._most, strict=True):
            kept = self._observed(group, context)
            overdue = kept["age"] - kept["threshold"]
            rank = ranks(-overdue, at_most=most)
            chosen.append((overdue >= 0) & (rank < most))
            places.append(rank)
            memory[group.name] = self._renewed(kept, chosen[-1], context.settings)
        done = begun_anew(self.groups, subject, context=context, rows=self._rows, chosen=chosen, ranks=places)
        return done._replace(memory=memory)

    # -- one group --------------------------------------------------------------------------------------------------

    def _first_memory(self, group: Group, net: Tensors) -> dict[str, Tensor]:
        like = group.like(net)
        gaps, threshold = like.new_zeros(group.size, self.num_bins), like.new_full((group.size,), self.longest)
        return {"step": like.new_zeros(()), "age": like.new_zeros(group.size), "threshold": threshold, "gaps": gaps}

    def _observed(self, group: Group, context: Context) -> dict[str, Tensor]:
        """Ages and gaps after the step's examples, one after another."""
        before, count = context.memory[group.name], len(context.batch.targets)
        like = before["age"]
        fires = torch.stack([(v.reshape(group.size, count, -1) > 0).any(dim=2) for v in values_of(group, context.features)])
        fires = fires.any(dim=0)  # [size, B]
        number = torch.arange(1, count + 1, dtype=like.dtype, device=like.device)
        last = torch.where(fires, number, 0.0).cummax(dim=1).values  # the last example up to here on which it fired; 0: none
        earlier = torch.nn.functional.pad(last[:, :-1], (1, 0))
        gap = number - earlier + torch.where(earlier == 0, like[:, None], 0.0)
        gaps = before["gaps"].scatter_add(1, self._bin(gap), fires.to(like.dtype))
        age = count - last[:, -1] + torch.where(last[:, -1] == 0, like, 0.0)
        return {**before, "step": before["step"] + 1, "age": age, "gaps": gaps}

    def _bin(self, gap: Tensor) -> Tensor:
        return (BINS_AN_OCTAVE * gap.log2() + EDGE).floor().clamp(0, self.num_bins - 1).long()

    def _renewed(self, kept: Tensors, chosen: Tensor, settings: Tensors) -> dict[str, Tensor]:
        """What is remembered after the `chosen` units began anew; at a window's end with thresholds of its gaps."""
        age = kept["age"]
        silence = self._bin(age.clamp_min(1))[:, None]  # ends where the unit begins anew
        gaps = kept["gaps"].scatter_add(1, silence, chosen[:, None].to(age.dtype))
        ends = kept["step"] >= settings["window"]
        return {
            "step": torch.where(ends, 0.0, kept["step"]),
            "age": torch.where(chosen, 0.0, age),
            "threshold": torch.where(ends, self._threshold(kept["threshold"], gaps, settings), kept["threshold"]),
            "gaps": torch.where(ends, 0.0, gaps),
        }

    @staticmethod
    def _threshold(before: Tensor, gaps: Tensor, settings: Tensors) -> Tensor:
        up_to = gaps.cumsum(dim=1)
        total = up_to[:, -1]
        at = (up_to < (1 - settings["eta"]) * total[:, None]).sum(dim=1)
        quantile = 2 ** ((at + 1) / BINS_AN_OCTAVE).to(before.dtype)
        after = torch.where(quantile < before, quantile, settings["expansion"] * before)
        return torch.where(total > 0, after.maximum(settings["shortest"]).minimum(settings["longest"]), before)
