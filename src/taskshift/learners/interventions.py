"""What a learner does to the net besides following the gradient: after a step, after an epoch, between tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from taskshift.learners.part import Context, Memory, Part, Subject, Switch, Tensors


class Intervention(Part):
    """Something that changes the net or the optimizer's slots. Derive from one of the three below, or from several."""

    def measured(self, net: Tensors, memory: Memory) -> Tensors:
        """The net that tests, evaluators and checkpoints see, where it is another than the one that is trained."""
        return net

    def extend(self, net: nn.Module, inputs: Tensor) -> None:
        """Add to a net the modules that it needs in it, of buffers alone, before there is a state; `inputs` are two examples.

        It is called for the run's net, and for nets drawn anew; parameters keep their names and shapes.
        """


class AfterStep(Intervention, ABC):
    """Acts after each step of the optimizer, or after every `every`-th."""

    every: int = 1

    @abstractmethod
    def after_step(self, subject: Subject, context: Context) -> Subject:
        """The net, slots and memory after it; features and gradients in `context` are from before the step. Pure."""

    def meanwhile(self, subject: Subject, context: Context) -> Memory:
        """Its memory after a step after which it does not act, where `every` is above 1. Pure."""
        return subject.memory


class StepScaling(AfterStep, ABC):
    """Changes how far the optimizer's own step goes, and so acts before all other interventions, in every step.

    `context.net_before` and `context.slots_before` are what the step began with.
    """


class AfterEpoch(Intervention, ABC):
    """Acts at each epoch's end, before the test."""

    @abstractmethod
    def after_epoch(self, subject: Subject, context: Switch) -> Subject:
        """The net, slots and memory after it."""


class AtSwitch(Intervention, ABC):
    """Acts at the start of every task but the first, before its first batch, and sees the new task's data."""

    @abstractmethod
    def at_switch(self, subject: Subject, context: Switch) -> Subject:
        """The net, slots and memory with which the new task begins."""


class ResetOptimizer(AtSwitch):
    """Forget the optimizer's momenta and step counts at a switch (Asadi et al. 2023)."""

    def at_switch(self, subject: Subject, context: Switch) -> Subject:
        return subject._replace(slots=context.first_slots(subject.net))
