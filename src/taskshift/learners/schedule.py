"""When a learning-rate scheduler steps, and how it starts again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


class Schedule:
    """Any scheduler of torch.optim, or none, stepped after every batch or every epoch.

    It moves the numbers in the groups of torch's `optimizer`, on the host; a rule's settings are read off them.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        make: Callable[..., LRScheduler] | None,
        *,
        every: Literal["step", "epoch"] = "epoch",
        restart: bool = True,
    ):
        self.optimizer, self.make, self.every, self.restart = optimizer, make, every, restart
        self._at_first = [_options(group) for group in optimizer.param_groups]
        self.scheduler = None
        self._begin()
        if isinstance(self.scheduler, ReduceLROnPlateau) and every == "step":
            raise ValueError(
                "scheduler_every is 'step' but ReduceLROnPlateau looks at an epoch's loss; set scheduler_every to 'epoch'"
            )

    def begin_task(self) -> bool:
        """Where the schedule restarts with each task: put back what it changed in the groups, and make it anew."""
        if self.make is None or not self.restart:
            return False
        for group, options in zip(self.optimizer.param_groups, self._at_first, strict=True):
            group.update(deepcopy(options))
        self._begin()
        return True

    def after_step(self) -> bool:
        """Whether the groups may have changed."""
        if self.scheduler is None or self.every == "epoch":
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

    def _begin(self) -> None:
        if self.make is not None:
            self.scheduler = self.make(self.optimizer)
            self.optimizer._opt_called = True  # else torch warns that nobody steps this optimizer: a rule does in its place


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter group's settings, without its parameters."""
    return deepcopy({name: value for name, value in group.items() if name != "params"})
