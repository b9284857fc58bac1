"""What a watcher is: an evaluator of single steps, with a cadence within a task."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from loss_landscape import HessianOperator, LossSurface
from taskshift import randomness
from taskshift.evaluators.evaluator import Settings
from taskshift.learners.learner import Learner, State
from taskshift.quantities import Quantity
from taskshift.shifts.task import Batch, Task


@dataclass(frozen=True)
class WatchedStep:
    """One step of the training, from before and after: all that a watcher is given, and nothing in it can change the run.

    The net stands where it stood before the step, in eval mode. It is the one that learns, whatever net tests and evaluators see.
    """

    task: Task
    number: int  # of the task's steps, from 0
    batch: Batch  # that the step was made on, inputs [B, …]
    learner: Learner
    before: State
    after: State
    seed: int
    settings: Settings
    gather: Callable[[], Sequence[Batch]]  # makes the evaluation data

    @property
    def net(self) -> nn.Module:
        """The net before the step."""
        return self.learner.net

    @cached_property
    def update(self) -> dict[str, Tensor]:
        """By how much the step moved each trained parameter: the optimizer and all that acted after it."""
        return {name: self.after["net"][name] - self.before["net"][name] for name in self.learner.trained}

    @cached_property
    def surface(self) -> LossSurface:
        """The task's loss around the net before the step, over the step's own batch."""
        return LossSurface(self.net, self.task.loss, [self.batch], dtype=self.settings.dtype)

    @cached_property
    def evaluation_batches(self) -> Sequence[Batch]:
        """The evaluation data, the same that the task's evaluators see."""
        return self.gather()

    @cached_property
    def evaluation_surface(self) -> LossSurface:
        """The same over the evaluation data."""
        return LossSurface(self.net, self.task.loss, self.evaluation_batches, dtype=self.settings.dtype)

    @cached_property
    def hessian(self) -> HessianOperator:
        """The Hessian of `surface`."""
        return HessianOperator(self.surface, memory_budget_mb=self.settings.memory_budget_mb)

    @cached_property
    def evaluation_hessian(self) -> HessianOperator:
        """The Hessian of `evaluation_surface`."""
        return HessianOperator(self.evaluation_surface, memory_budget_mb=self.settings.memory_budget_mb)

    @cached_property
    def optimizer(self) -> Optimizer:
        """torch's optimizer as it stood before the step, over the parameters of `net`; without state where it had none."""
        optimizer, leaves = copy.copy(self.learner.optimizer), dict(self.net.named_parameters())
        rule, settings = self.learner.rule, self.optimizer_settings
        own = rule.torch_state(self.before["slots"]) or {}
        optimizer.state = defaultdict(dict, {leaves[name]: dict(slots) for name, slots in own.items()})
        optimizer.param_groups = [rule.group_of(group, settings) for group in optimizer.param_groups]
        return optimizer

    @property
    def optimizer_settings(self) -> dict[str, float]:
        """What the optimizer's settings were in the step, by the rule's names, `lr` among them."""
        return {name: value.item() for name, value in self.before["settings"].get("optimizer", {}).items()}

    def generator(self, name: str) -> torch.Generator:
        """A generator on the CPU from (seed, task, step, name), never from the order of calls."""
        return randomness.generator(self.seed, "watcher", self.task.index, self.number, name)


class Watcher(ABC):
    """Measures something about the steps number 0, `every`, 2 · `every` … of each task. Gets eval mode, random state and timing.

    What it remembers from step to step is in `state_dict`: a run that goes on from a checkpoint goes on with it.
    """

    quantities: Sequence[Quantity] = ()
    """What it tells, without its own name, as an evaluator's."""

    def __init__(self, every: int):
        if every < 1:
            raise ValueError(f"every is {every}; give the steps from one that is watched to the next, at least 1")
        self.every = every

    @abstractmethod
    def __call__(self, step: WatchedStep) -> Mapping[str, float]:
        """Measure; names come without the watcher's own name, which is put before them."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as tensors and numbers in plain containers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, but the checkpoint has {', '.join(sorted(state))} for it")
