"""A net and everything that changes it: optimizer × regularisers × interventions × schedule."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from taskshift.learners.interventions import AfterStep, AtSwitch, Intervention
from taskshift.learners.regularizers import Regularizer
from taskshift.learners.schedule import Schedule
from taskshift.shifts.task import Task


@dataclass(frozen=True)
class Step:
    """What one call of `learn` leaves behind, on the device, detached: no host sync."""

    loss: Tensor  # scalar, the task's mean loss on the batch before the step, without regularisers
    outputs: Tensor  # [B, K]


class Learner:
    """Trains `net`, one batch a call.

    The loss's gradient, with the regularisers', is clipped to the norm `gradient_clip` (null: it is not), the optimizer
    steps, the interventions act, the scheduler steps: after every batch or every epoch (`scheduler_every`). With
    `restart_scheduler` each task begins with the learning rate, and all else the scheduler changes, as they were at first.

    Everything it remembers is in `state_dict`: a learner built anew that loads it goes on with the same bits.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None = None,
        regularizers: dict[str, Regularizer] | None = None,
        interventions: dict[str, Intervention] | None = None,
        gradient_clip: float | None = None,
        scheduler_every: Literal["step", "epoch"] = "epoch",
        restart_scheduler: bool = True,
    ):
        if gradient_clip is not None and not gradient_clip > 0:
            raise ValueError(f"gradient_clip is {gradient_clip}; a norm above 0, or null for no clipping, is allowed")
        self.net = net
        self.parameters = {name: value for name, value in net.named_parameters() if value.requires_grad}
        self.optimizer = optimizer(list(self.parameters.values()))
        _refuse_closures(self.optimizer)
        self.schedule = Schedule(self.optimizer, scheduler, every=scheduler_every, restart=restart_scheduler)
        self.regularizers, self.interventions = dict(regularizers or {}), dict(interventions or {})
        self.gradient_clip = gradient_clip
        for regularizer in self.regularizers.values():
            regularizer.attach(net)
        for name, intervention in self.interventions.items():
            if not isinstance(intervention, AfterStep | AtSwitch):
                raise TypeError(f"intervention {name} is a {type(intervention).__name__}; it must be an AfterStep or an AtSwitch")
            intervention.attach(net, self.optimizer)

    def begin(self, task: Task) -> None:
        """Get ready for `task`, once, before its first batch: nothing for the first, switch interventions for the others."""
        if task.index == 0:
            return
        with torch.no_grad():
            for intervention in self.interventions.values():
                if isinstance(intervention, AtSwitch):
                    intervention.at_switch(self.net, self.optimizer, task)
        self.schedule.begin_task()

    def learn(self, task: Task, inputs: Tensor, targets: Tensor) -> Step:
        """One step on one batch, inputs [B, …], targets [B]."""
        if not self.net.training:
            self.net.train()
        self.optimizer.zero_grad(set_to_none=True)
        outputs = self.net(inputs)
        loss = task.loss(outputs, targets)
        self._regularized(loss).backward()
        if self.gradient_clip is not None:
            clip_grad_norm_(self.parameters.values(), self.gradient_clip)
        self.optimizer.step()
        with torch.no_grad():
            for intervention in self.interventions.values():
                if isinstance(intervention, AfterStep):
                    intervention.after_step(self.net, self.optimizer, task, inputs, targets)
        self.schedule.after_step()
        return Step(loss.detach(), outputs.detach())

    def _regularized(self, loss: Tensor) -> Tensor:
        for regularizer in self.regularizers.values():
            loss = loss + regularizer.penalty(self.parameters)
        return loss

    def end_epoch(self, task: Task, loss: float) -> None:
        """Close an epoch of `task` whose mean training loss was `loss`."""
        self.schedule.after_epoch(loss)

    def state_dict(self) -> dict[str, Any]:
        """Tensors in plain containers; they are the learner's own, so save or clone them before the next step."""
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.schedule.state_dict(),
            "regularizers": {name: part.state_dict() for name, part in self.regularizers.items()},
            "interventions": {name: part.state_dict() for name, part in self.interventions.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` of a learner built in the same way gave."""
        for kind, parts in (("regularizers", self.regularizers), ("interventions", self.interventions)):
            if state[kind].keys() != parts.keys():
                raise ValueError(f"the checkpoint has the {kind} {sorted(state[kind])} but this learner has {sorted(parts)}")
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["scheduler"])
        for kind, parts in (("regularizers", self.regularizers), ("interventions", self.interventions)):
            for name, part in parts.items():
                part.load_state_dict(state[kind][name])


def _refuse_closures(optimizer: Optimizer) -> None:
    """A step that needs a closure evaluates the loss several times; `learn` evaluates it once."""
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"optimizer {type(optimizer).__name__} evaluates the loss several times a step (it needs a closure), "
            "which this learner does not offer; take one that steps from the gradient alone, such as SGD or Adam"
        )
