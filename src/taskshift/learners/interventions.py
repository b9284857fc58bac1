"""What a learner does to the net besides following the gradient: after a step, or between tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.optim import Optimizer

from taskshift.learners.part import Part
from taskshift.shifts.task import Task


class Intervention(Part):
    """Something that changes the net or the optimizer's state. Randomness comes from torch's default generator.

    Derive from `AfterStep`, from `AtSwitch`, or from both.
    """

    def attach(self, net: nn.Module, optimizer: Optimizer) -> None:
        """See both once, as initialised, before the first step and before any `load_state_dict`; hooks go on here."""


class AfterStep(Intervention, ABC):
    """Acts after each step of the optimizer, without gradients."""

    @abstractmethod
    def after_step(self, net: nn.Module, optimizer: Optimizer, task: Task, inputs: Tensor, targets: Tensor) -> None:
        """Change parameters in place. The batch is the step's; the net's outputs on it were from before the step."""


class AtSwitch(Intervention, ABC):
    """Acts at the start of every task but the first, before its first batch, without gradients."""

    @abstractmethod
    def at_switch(self, net: nn.Module, optimizer: Optimizer, task: Task) -> None:
        """Change parameters in place; `task` is the one that begins."""


class ResetOptimizer(AtSwitch):
    """Forget the optimizer's momenta and step counts at a switch (Asadi et al. 2023)."""

    def at_switch(self, net: nn.Module, optimizer: Optimizer, task: Task) -> None:
        optimizer.state.clear()
