"""An environment as small as it gets, as a plugin has it: what is learned from depends on what was learned."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from taskshift.learners.forward import eval_mode
from taskshift.quantities import Column, Quantity
from taskshift.randomness import generator
from taskshift.shifts.source import Actor, Source, StreamSettings
from taskshift.shifts.task import Batch, Task


class Ring(Source):
    """`size` places in a ring, and in each two actions: a step back, a step forward. Task k pays 1 at place 2k + 2.

    The net gives both actions' values; the larger one is taken, or the other by chance. `batch_size` walkers go at a time.
    """

    quantities = (
        Quantity(
            "return",
            "steps of a walk from place 0 along the best actions that are paid",
            "pays",
            panel="return of the best actions",
            columns=(Column("return"),),
        ),
    )

    def __init__(self, stream_settings: StreamSettings, size: int = 6, num_steps: int = 9, exploration: float = 0.3):
        super().__init__(stream_settings, name="ring", input_shape=(size,), num_outputs=2)
        self.size, self.num_steps, self.exploration = size, num_steps, exploration
        self.places, self.num_taken = torch.arange(self.batch_size, device=self.device) % size, 0

    def task(self, index: int) -> Task:
        every = torch.arange(2 * self.size, device=self.device)  # 2 · place + action
        return Task(index, every, every, self._shown(index), ActionValueMSE())

    def num_batches(self, task: Task) -> int:
        return self.num_steps

    def chunks(
        self, task: Task, epoch: int, *, start: int = 0, length: int | None = None, actor: Actor | None = None
    ) -> Iterator[Batch]:
        for _ in range(start, self.num_steps):
            chance = torch.rand(self.batch_size, generator=generator(self.seed, "ring", self.num_taken)).to(self.device)
            best = self._best(actor.net, self.places)
            taken = torch.where(chance < self.exploration, 1 - best, best)
            batch = self.gather(task, 2 * self.places + taken)
            self.places, self.num_taken = (self.places + 2 * taken - 1) % self.size, self.num_taken + 1
            yield Batch(batch.inputs[None], batch.targets[None])

    def gather(self, task: Task, indices: Tensor) -> Batch:
        return task.view(F.one_hot(indices // 2, self.size).float(), indices, indices)

    def scores(self, task: Task, net: nn.Module) -> dict[str, float]:
        """How often the best actions of a walker from place 0 are paid."""
        place, paid = torch.zeros(1, dtype=torch.int64, device=self.device), 0.0
        for _ in range(self.num_steps):
            pair = 2 * place + self._best(net, place)
            paid += self.gather(task, pair).targets[0, 1].item()
            place = (place + 2 * (pair % 2) - 1) % self.size
        return {"return": paid}

    def state_dict(self) -> dict:
        return {"places": self.places, "num_taken": self.num_taken}

    def load_state_dict(self, state) -> None:
        self.places, self.num_taken = state["places"], state["num_taken"]

    def _best(self, net: nn.Module, places: Tensor) -> Tensor:
        with eval_mode(net), torch.no_grad():
            return net(F.one_hot(places, self.size).float()).argmax(dim=1)

    def _shown(self, index: int):
        def view(inputs: Tensor, targets: Tensor, indices: Tensor) -> Batch:
            action = indices % 2
            paid = (indices // 2 + 2 * action - 1) % self.size == (2 * index + 2) % self.size
            return Batch(inputs, torch.stack([action, paid], dim=1).float())

        return view


class ActionValueMSE(nn.Module):
    """(outputs[action] - reward)², for targets [B, 2] of actions and rewards."""

    reduction = "mean"

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        chosen = outputs.gather(1, targets[:, :1].long()).squeeze(1)
        return F.mse_loss(chosen, targets[:, 1].to(outputs.dtype), reduction=self.reduction)
