"""When a learning-rate scheduler steps, and how it starts again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from taskshift.faults import Fault
from taskshift.shifts.task import Task

Every = Literal["step", "epoch"]


@dataclass(frozen=True)
class Length:
    """How long the tasks are."""

    tasks: Sequence[Task]
    epochs: int  # of each
    num_batches: Callable[[Task], int]  # of an epoch

    def of(self, task: Task, every: Every) -> int:
        """How often a scheduler steps in a task."""
        return self.epochs * (1 if every == "epoch" else self.num_batches(task))

    def of_each(self, every: Every) -> list[int]:
        """The same of every task."""
        if every == "epoch":
            return [self.epochs] * len(self.tasks)
        return [self.epochs * batches for batches in self._batches_of_each]

    @cached_property
    def _batches_of_each(self) -> list[int]:
        return [self.num_batches(task) for task in self.tasks]


class Schedule:
    """Any scheduler of torch.optim, or none, stepped after every batch or every epoch.

    It moves the numbers in the groups of torch's `optimizer`, on the host; a rule's settings are read off them. A one-cycle
    schedule whose `total_steps` is null goes over a task, and over each anew. Raises Fault for a schedule that could not go on
    to the end of what `length` says.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        make: Callable[..., LRScheduler] | None,
        *,
        every: Every = "epoch",
        restart: bool = True,
        length: Length | None = None,
    ):
        self.optimizer, self.make, self.every, self.restart, self.length = optimizer, make, every, restart, length
        self._at_first = [_options(group) for group in optimizer.param_groups]
        self.scheduler = None
        if make is None:
            return
        _refuse_missing_momentum(make, optimizer)
        self._begin(length.tasks[0] if length is not None else None)
        if isinstance(self.scheduler, ReduceLROnPlateau) and every == "step":
            raise Fault(
                "learner.scheduler_every=step: ReduceLROnPlateau looks at an epoch's loss; give learner.scheduler_every=epoch"
            )
        if isinstance(self.scheduler, OneCycleLR) and length is not None:
            self._refuse_too_few_steps(self.scheduler.total_steps, length)

    def begin_task(self, task: Task) -> bool:
        """Where the schedule restarts with each task: put back what it changed in the groups, and make it anew."""
        if self.make is None or not self.restart:
            return False
        for group, options in zip(self.optimizer.param_groups, self._at_first, strict=True):
            group.update(deepcopy(options))
        self._begin(task)
        return True

    @property
    def moves_every_step(self) -> bool:
        return self.scheduler is not None and self.every == "step"

    def after_step(self) -> bool:
        """Whether the groups may have changed."""
        if not self.moves_every_step:
            return False
        self.scheduler.step()
        return True

    def after_epoch(self, loss: float) -> bool:
        """Whether the groups may have changed."""
        if self.scheduler is None or self.every == "step":
            return False
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(loss)
        else:
            self.scheduler.step()
        return True

    def state_dict(self) -> dict[str, Any]:
        """The groups' numbers, and what the scheduler remembers."""
        groups = [_options(group) for group in self.optimizer.param_groups]
        return {"groups": groups, "scheduler": {} if self.scheduler is None else self.scheduler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for group, options in zip(self.optimizer.param_groups, state["groups"], strict=True):
            group.update(deepcopy(options))
        if self.scheduler is not None:
            self.scheduler.load_state_dict(dict(state["scheduler"]))

    def _begin(self, task: Task | None) -> None:
        self.scheduler = self.make(self.optimizer, **self._steps_of(task))
        self.optimizer._opt_called = True  # else torch warns that nobody steps this optimizer: a rule does in its place

    def _steps_of(self, task: Task | None) -> dict[str, int]:
        """`total_steps`, where the schedule leaves them open."""
        if not _is_open(self.make):
            return {}
        if self.length is None or not self.restart:
            raise Fault(
                "learner.scheduler.total_steps=null: that is as many as a task has, for a schedule that begins anew with each; "
                "give their number, or learner.restart_scheduler=true"
            )
        return {"total_steps": self.length.of(task, self.every)}

    def _refuse_too_few_steps(self, given: int, length: Length) -> None:
        """torch raises where a one-cycle schedule steps once too often, in the middle of a run."""
        if _is_open(self.make):
            return
        each = length.of_each(self.every)
        needed, where = (max(each), "in a task") if self.restart else (sum(each), "in all tasks")
        if given < needed:
            raise Fault(
                f"learner.scheduler: the cycle has {given} steps, but it steps {needed} times {where}; give "
                f"learner.scheduler.total_steps={needed}"
                + (", or null for as many as each task has" if self.restart else ", or learner.restart_scheduler=true")
            )


def _is_open(make: Callable[..., LRScheduler]) -> bool:
    """Whether a one-cycle schedule does not say how many steps it has."""
    takes = inspect.signature(make).parameters
    return all(name in takes and takes[name].default is None for name in ("total_steps", "epochs", "steps_per_epoch"))


def _refuse_missing_momentum(make: Callable[..., LRScheduler], optimizer: Optimizer) -> None:
    """A schedule that moves the momentum needs one: of an optimizer that began without, only the learning rate may move."""
    cycles = inspect.signature(make).parameters.get("cycle_momentum")
    if (
        cycles is not None
        and cycles.default is True
        and not (optimizer.defaults.get("momentum") or "betas" in optimizer.defaults)
    ):
        name = type(optimizer).__name__
        raise Fault(
            f"learner.scheduler.cycle_momentum=true: the optimizer ({name}) has no momentum that could be moved; give "
            "learner.scheduler.cycle_momentum=false"
            + (", or a learner.optimizer.momentum above 0" if "momentum" in optimizer.defaults else "")
        )


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter group's settings, without its parameters."""
    return deepcopy({name: value for name, value in group.items() if name != "params"})
