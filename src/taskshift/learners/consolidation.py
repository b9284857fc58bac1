"""Penalties that hold what earlier tasks need: EWC, synaptic intelligence, memory-aware synapses. Baselines of stability."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from taskshift.learners.forward import Forward
from taskshift.learners.gradient import slopes
from taskshift.learners.interventions import AfterStep, AtSwitch
from taskshift.learners.part import Context, Memory, Start, Subject, Switch, Tensors
from taskshift.learners.regularizers import Weighted

Gathered = dict[str, Tensor]


class Consolidation(Weighted, AfterStep, AtSwitch):
    """(`weight` / 2) Σ Ω (θ − θ*)², by parameter; θ* are those with which the last task ended, Ω what each is worth.

    While a task is learned its own importances gather, step by step, so that no example is seen twice. At a switch
    Ω ← `decay` Ω + those, θ* ← θ, and gathering begins anew; in the first task there is no penalty. g is what the step follows,
    without this penalty's part.
    """

    def __init__(self, weight: float, decay: float = 1.0):
        super().__init__(weight)
        if not 0 <= decay <= 1:
            raise ValueError(f"decay is {decay}; the share of the old importances that stays at a switch lies between 0 and 1")
        self.decay = decay

    def settings(self) -> Mapping[str, float]:
        return {**super().settings(), "decay": self.decay}

    def init(self, start: Start) -> Memory:
        first = {name: start.net[name] for name in start.trained}
        names = ("importance", "gathered")
        memory = {key: {name: torch.zeros_like(p) for name, p in first.items()} for key in names}
        return {
            **memory,
            "anchor": {name: p.clone() for name, p in first.items()},
            "steps": next(iter(first.values())).new_zeros(()),
        }

    def penalty(self, parameters: Tensors, context: Context) -> Tensor:
        anchor, importance = context.memory["anchor"], context.memory["importance"]
        parts = [(importance[name] * (p - anchor[name]).square()).sum() for name, p in parameters.items()]
        return context.settings["weight"] / 2 * torch.stack(parts).sum()

    def after_step(self, subject: Subject, context: Context) -> Subject:
        memory, before = context.memory, context.net_before
        own = {
            name: g - context.settings["weight"] * memory["importance"][name] * (before[name] - memory["anchor"][name])
            for name, g in context.gradients.items()
        }
        return subject._replace(
            memory={**memory, "gathered": self.gathered(own, subject.net, context), "steps": memory["steps"] + 1}
        )

    def at_switch(self, subject: Subject, context: Switch) -> Subject:
        memory, settings = subject.memory, context.settings
        found = self.importances(memory, subject.net, settings)
        decay = settings["decay"].to(memory["steps"].dtype)
        importance = {name: decay * memory["importance"][name] + found[name] for name in found}
        zeros = {name: torch.zeros_like(value) for name, value in found.items()}
        anchor = {name: subject.net[name].clone() for name in found}
        memory = {**memory, "importance": importance, "anchor": anchor, "gathered": zeros}
        return subject._replace(memory={**memory, "steps": torch.zeros_like(memory["steps"])})

    @abstractmethod
    def gathered(self, gradients: Tensors, net: Tensors, context: Context) -> Gathered:
        """What has gathered after a step with these gradients, which led to `net`."""

    @abstractmethod
    def importances(self, memory: Memory, net: Tensors, settings: Tensors) -> Gathered:
        """Of the task that ended, from what has gathered in it; a switch's settings are in float64."""


class Averaged(Consolidation):
    """Its importances are a running average over steps, `average_decay` a step, corrected for its beginning."""

    def __init__(self, weight: float, decay: float = 1.0, average_decay: float = 0.999):
        super().__init__(weight, decay)
        if not 0 <= average_decay < 1:
            raise ValueError(f"average_decay is {average_decay}; running means forget by it, from 0 to below 1")
        self.average_decay = average_decay

    def settings(self) -> Mapping[str, float]:
        return {**super().settings(), "average_decay": self.average_decay}

    def gathered(self, gradients: Tensors, net: Tensors, context: Context) -> Gathered:
        found, decay = self.worth(gradients, net, context), context.settings["average_decay"]
        return {name: torch.lerp(value, context.memory["gathered"][name], decay) for name, value in found.items()}

    def importances(self, memory: Memory, net: Tensors, settings: Tensors) -> Gathered:
        correction = -torch.expm1(memory["steps"].clamp_min(1) * settings["average_decay"].log())
        return {name: value / correction.to(value.dtype) for name, value in memory["gathered"].items()}

    @abstractmethod
    def worth(self, gradients: Tensors, net: Tensors, context: Context) -> Gathered:
        """One step's importances."""


class EWC(Averaged):
    """Online elastic weight consolidation (Kirkpatrick et al. 2017; Schwarz et al. 2018): Ω = E g², the empirical Fisher.

    Of a batch the gradient's mean is squared: the batch size times too small where examples are independent, exact at size 1.
    """

    def worth(self, gradients: Tensors, net: Tensors, context: Context) -> Gathered:
        return {name: g.square() for name, g in gradients.items()}


class MAS(Averaged):
    """Memory-aware synapses (Aljundi et al. 2018): Ω = E |∂ mean ‖f(x)‖² / ∂θ|, f the net's outputs. One more pass a step.

    It needs no targets. Of a batch the mean over examples is differentiated.
    """

    def init(self, start: Start) -> Memory:
        self._forward = Forward(start.module)
        return super().init(start)

    def worth(self, gradients: Tensors, net: Tensors, context: Context) -> Gathered:
        def length(parameters: Tensors) -> tuple[Tensor, tuple[()]]:
            outputs, _, _ = self._forward({**net, **parameters}, context.batch.inputs)
            return outputs.square().flatten(1).sum(dim=1).mean(), ()  # vmap takes no None

        return {name: value.abs() for name, value in slopes(length, {name: net[name] for name in gradients})[0].items()}


class SI(Consolidation):
    """Synaptic intelligence (Zenke et al. 2017): Ω = max(0, Σ −g Δθ) / ((θ − θ*)² + `damping`), over the task's steps.

    Δθ goes from where the step began to what the optimizer, and what acts before this part, made of it.
    """

    def __init__(self, weight: float, decay: float = 1.0, damping: float = 0.1):
        super().__init__(weight, decay)
        if not damping > 0:
            raise ValueError(f"damping is {damping}; it keeps importances finite and is above 0")
        self.damping = damping

    def settings(self) -> Mapping[str, float]:
        return {**super().settings(), "damping": self.damping}

    def gathered(self, gradients: Tensors, net: Tensors, context: Context) -> Gathered:
        before, path = context.net_before, context.memory["gathered"]
        return {name: path[name] - g * (net[name] - before[name]) for name, g in gradients.items()}

    def importances(self, memory: Memory, net: Tensors, settings: Tensors) -> Gathered:
        found = {}
        for name, path in memory["gathered"].items():
            way = (net[name] - memory["anchor"][name]).square()
            found[name] = path.clamp_min(0) / (way + settings["damping"].to(path.dtype))
        return found
