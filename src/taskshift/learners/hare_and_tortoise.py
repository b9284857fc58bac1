"""A net that learns and a slow one that follows it."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from taskshift.learners.interventions import AfterEpoch, AfterStep
from taskshift.learners.part import Context, Memory, Start, Subject, Switch, Tensors
from taskshift.quantities import Quantity


class HareAndTortoise(AfterStep, AfterEpoch):
    """tortoise ← decay · tortoise + (1 − decay) · hare after each step; every `every_epochs` epochs the hare is put back to the
    tortoise (Lee et al. 2024). What is measured is the tortoise.

    Running statistics follow as the parameters do. The optimizer's state stays the hare's.
    """

    quantities = (
        Quantity(
            "put_back",
            "1 in an epoch after which the net was put back to the slow one, else 0",
            "0 or 1",
            "Lee et al. 2024; `every_epochs`",
        ),
    )

    def __init__(self, decay: float = 0.999, every_epochs: int = 10):
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; the share of the tortoise that stays is at least 0 and below 1")
        if every_epochs < 1:
            raise ValueError(f"every_epochs is {every_epochs}; a whole number, 1 or more, is expected")
        self.decay, self.every_epochs = decay, every_epochs

    def settings(self) -> Mapping[str, float]:
        return {"decay": self.decay}

    def init(self, start: Start) -> Memory:
        tortoise = {name: tensor.clone() for name, tensor in start.net.items()}
        return {"tortoise": tortoise, "epochs": torch.zeros((), dtype=torch.int64, device=next(iter(tortoise.values())).device)}

    def after_step(self, subject: Subject, context: Context) -> Subject:
        keeps, followed = context.settings["decay"], {}
        for name, slow in subject.memory["tortoise"].items():
            fast = subject.net[name]
            followed[name] = keeps * slow + (1 - keeps) * fast if fast.is_floating_point() else fast
        return subject._replace(memory={**subject.memory, "tortoise": followed})

    def after_epoch(self, subject: Subject, context: Switch) -> Subject:
        epochs = subject.memory["epochs"] + 1
        back = epochs % self.every_epochs == 0
        net = {name: torch.where(back, slow, subject.net[name]) for name, slow in subject.memory["tortoise"].items()}
        return subject._replace(net=net, memory={**subject.memory, "epochs": epochs}, numbers={"put_back": back.double()})

    def measured(self, net: Tensors, memory: Memory) -> Tensors:
        return memory["tortoise"]
