"""What an optimizer does in a step, as a pure function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from taskshift.learners.part import Context, Part, Slots, Subject, Tensors


class Rule(Part, ABC):
    """θ, g, slots → θ, slots. A subclass of your own goes where an optimizer goes, `learner/optimizer=own`."""

    @abstractmethod
    def first_slots(self, parameters: Tensors) -> Slots:
        """What it remembers of these parameters before their first step."""

    @abstractmethod
    def step(self, subject: Subject, context: Context) -> Subject:
        """`subject.net` holds the trained parameters, `context.gradients` their gradients."""

    def settings_of(self, group: Mapping[str, Any]) -> Mapping[str, float]:
        """Its settings as a scheduler left them in a torch optimizer's parameter group."""
        return {name: float(group[name]) for name in self.settings()}

    def group_of(self, group: Mapping[str, Any], settings: Mapping[str, float]) -> dict[str, Any]:
        """A torch optimizer's parameter group with these settings put in, so that `settings_of` reads them from it."""
        return {**group, **settings}

    def loaded(self, slots: Slots) -> Slots:
        """Slots that come from a checkpoint, ready to go on with."""
        return slots

    def torch_state(self, slots: Slots) -> Mapping[str, Mapping[str, Tensor]] | None:
        """The state of torch's own optimizer that stands where this does, by parameter; None where there is none such."""
        return None


class PerTensor(Rule):
    """A rule that treats each parameter by itself: `update` is all there is to write."""

    slots: tuple[str, ...] = ()

    def first_slots(self, parameters: Tensors) -> Slots:
        return {slot: {name: p.new_zeros(p.shape) for name, p in parameters.items()} for slot in self.slots}

    def coefficients(self, settings: Tensors) -> Tensors:
        """What `update` needs of the settings, computed once a step in float64."""
        return settings

    @abstractmethod
    def update(self, p: Tensor, g: Tensor, own: Tensors, by: Tensors) -> tuple[Tensor, Tensors]:
        """One parameter after the step and its slots; `by` are the coefficients in its dtype."""

    def step(self, subject: Subject, context: Context) -> Subject:
        exact, cast = self.coefficients(context.settings), {}
        net: dict[str, Tensor] = {}
        slots: dict[str, dict[str, Tensor]] = {slot: {} for slot in self.slots}
        for name, p in subject.net.items():
            if p.dtype not in cast:
                cast[p.dtype] = {key: value.to(p.dtype) for key, value in exact.items()}
            own = {slot: subject.slots[slot][name] for slot in self.slots}
            net[name], own = self.update(p, context.gradients[name], own, cast[p.dtype])
            for slot, value in own.items():
                slots[slot][name] = value
        return subject._replace(net=net, slots=slots)

    def torch_state(self, slots: Slots) -> Mapping[str, Mapping[str, Tensor]] | None:
        names = next(iter(slots.values()), {})
        return {name: {slot: slots[slot][name] for slot in self.slots} for name in names}
