"""Gaussian noise on the gradient, or on the parameters."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from taskshift.learners.draws import EveryStep
from taskshift.learners.gradient import Found, Objective, Plain
from taskshift.learners.interventions import AfterStep
from taskshift.learners.part import Context, Memory, Start, Subject


def _per_parameter(start: Start) -> dict[str, EveryStep]:
    return {name: EveryStep(tuple(start.net[name].shape)) for name in start.trained}


def _checked(sigma: float) -> float:
    if not sigma >= 0:
        raise ValueError(f"sigma is {sigma}; a standard deviation is 0 or more")
    return sigma


class Noisy(Plain):
    """∇L + σ ξ, ξ standard normal, anew for every parameter and step: perturbed gradient descent. The optimizer sees the sum."""

    def __init__(self, sigma: float):
        self.sigma = _checked(sigma)
        self._draws: dict[str, EveryStep] = {}

    def settings(self) -> Mapping[str, float]:
        return {"sigma": self.sigma}

    def init(self, start: Start) -> Memory:
        self._draws = _per_parameter(start)
        return {}

    def draws(self) -> Mapping[str, EveryStep]:
        return self._draws

    def gradient(self, objective: Objective, context: Context) -> Found:
        found, sigma = super().gradient(objective, context), context.settings["sigma"]
        return found._replace(gradients={name: g + sigma * context.draws[name] for name, g in found.gradients.items()})


class Perturb(AfterStep):
    """θ ← θ + σ ξ after each step, ξ standard normal: the noise is not scaled by the learning rate.

    With an L2 penalty and SGD it is the online form of shrink and perturb (Dohare et al. 2024).
    """

    def __init__(self, sigma: float):
        self.sigma = _checked(sigma)
        self._draws: dict[str, EveryStep] = {}

    def settings(self) -> Mapping[str, float]:
        return {"sigma": self.sigma}

    def init(self, start: Start) -> Memory:
        self._draws = _per_parameter(start)
        return {}

    def draws(self) -> Mapping[str, EveryStep]:
        return self._draws

    def after_step(self, subject: Subject, context: Context) -> Subject:
        sigma: Tensor = context.settings["sigma"]
        return subject._replace(net={name: subject.net[name] + sigma * context.draws[name] for name in self._draws})
