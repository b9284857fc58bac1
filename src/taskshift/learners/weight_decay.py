"""Weight decay that no optimizer rescales."""

from __future__ import annotations

from collections.abc import Mapping

from taskshift.learners.interventions import AfterStep
from taskshift.learners.part import Context, Memory, Start, Subject


class WeightDecay(AfterStep):
    """θ ← (1 − η λ) θ after each step, η the learning rate: decoupled decay (Loshchilov and Hutter 2019) for any optimizer.

    An L2 penalty's gradient goes through momentum and Adam's rescaling, this does not. torch.optim.AdamW decays before its step
    in place of after it: the steps are the same, half a step apart.
    """

    def __init__(self, weight: float):
        if not weight >= 0:
            raise ValueError(f"weight is {weight}; the weight of a decay is 0 or more")
        self.weight = weight

    def settings(self) -> Mapping[str, float]:
        return {"weight": self.weight}

    def init(self, start: Start) -> Memory:
        self._trained = start.trained
        return {}

    def after_step(self, subject: Subject, context: Context) -> Subject:
        kept = 1 - context.optimizer["lr"] * context.settings["weight"]
        return subject._replace(net={name: subject.net[name] * kept.to(subject.net[name].dtype) for name in self._trained})
