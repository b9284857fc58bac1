"""When a learning-rate scheduler steps, and how it starts again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


class Schedule:
    """Any scheduler of torch.optim, or none, stepped after every batch or every epoch."""

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
        self.scheduler = None if make is None else make(optimizer)
        if isinstance(self.scheduler, ReduceLROnPlateau) and every == "step":
            raise ValueError(
                "scheduler_every is 'step' but ReduceLROnPlateau looks at an epoch's loss; set scheduler_every to 'epoch'"
            )

    def begin_task(self) -> None:
        """Where the schedule restarts with each task: put back what it changed in the optimizer, and make it anew."""
        if self.make is None or not self.restart:
            return
        for group, options in zip(self.optimizer.param_groups, self._at_first, strict=True):
            group.update(deepcopy(options))
        self.scheduler = self.make(self.optimizer)

    def after_step(self) -> None:
        if self.scheduler is not None and self.every == "step":
            self.scheduler.step()

    def after_epoch(self, loss: float) -> None:
        if self.scheduler is None or self.every == "step":
            return
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(loss)
        else:
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return {} if self.scheduler is None else self.scheduler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.scheduler is not None:
            self.scheduler.load_state_dict(dict(state))


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter group's settings, without its parameters."""
    return deepcopy({name: value for name, value in group.items() if name != "params"})
