"""Gaussian noise on the gradient, or on the parameters."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from taskshift.learners.draws import EveryStep, for_each_parameter
from taskshift.learners.gradient import Found, Objective, Plain
from taskshift.learners.interventions import AfterStep
from taskshift.learners.part import Context, Memory, Part, Start, Subject, Tensors


class GaussianNoise(Part):
    """The base of parts that draw σ ξ for every trained parameter in each step, ξ standard normal."""

    def __init__(self, sigma: float):
        if not sigma >= 0:
            raise ValueError(f"sigma is {sigma}; a standard deviation is 0 or more")
        self.sigma = sigma
        self._draws: dict[str, EveryStep] = {}

    def settings(self) -> Mapping[str, float]:
        return {"sigma": self.sigma}

    def init(self, start: Start) -> Memory:
        self._draws = for_each_parameter(start)
        return {}

    def draws(self) -> Mapping[str, EveryStep]:
        return self._draws

    def added(self, tensors: Tensors, context: Context) -> dict[str, Tensor]:
        """The trained ones of these tensors, by name, with their noise."""
        return {name: tensors[name] + context.settings["sigma"] * context.draws[name] for name in self._draws}


class Noisy(GaussianNoise, Plain):
    """∇L + σ ξ: perturbed gradient descent. The optimizer sees the sum."""

    def gradient(self, objective: Objective, context: Context) -> Found:
        found = super().gradient(objective, context)
        return found._replace(gradients=self.added(found.gradients, context))


class Perturb(GaussianNoise, AfterStep):
    """θ ← θ + σ ξ after each step: the noise is not scaled by the learning rate.

    With an L2 penalty and SGD it is the online form of shrink and perturb (Dohare et al. 2024).
    """

    def after_step(self, subject: Subject, context: Context) -> Subject:
        return subject._replace(net=self.added(subject.net, context))
