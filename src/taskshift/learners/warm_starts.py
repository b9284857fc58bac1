"""What is done to a trained net before it meets new data: DASH and FIRE."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

import torch
from torch import Tensor

from taskshift.learners.interventions import AtSwitch
from taskshift.learners.matrices import matrix_names
from taskshift.learners.part import Memory, Start, Subject, Switch, Tensors

TINY = 1e-12


class Dash(AtSwitch):
    """w ← w · clip(cos(−ḡ, w), least, 1) for each unit's incoming weights w at a switch (Shin et al. 2024).

    ḡ is a running average of the new task's gradients with decay `decay`, over its batches in order, at the net as it is, without
    correction for the average's beginning (a cosine knows no length). A convolution's unit is an output channel. What points
    downhill is kept, what does not is shrunk.
    """

    def __init__(self, decay: float = 0.3, least: float = 0.3):
        for name, value in (("decay", decay), ("least", least)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; it lies between 0 and 1")
        self.decay, self.least = decay, least
        self._weights: tuple[str, ...] = ()

    def settings(self) -> Mapping[str, float]:
        return {"decay": self.decay, "least": self.least}

    def init(self, start: Start) -> Memory:
        self._weights = matrix_names(start)
        return {}

    def at_switch(self, subject: Subject, context: Switch) -> Subject:
        averages: dict[str, Tensor] = {}
        for batch in context.batches:
            gradients = context.gradients(subject.net, batch)
            for name in self._weights:
                share = 1 - context.settings["decay"].to(gradients[name].dtype)
                averages[name] = averages.get(name, torch.zeros_like(gradients[name])).lerp(gradients[name], share)
        net = {name: self._shrunk(subject.net[name], averages[name], context.settings) for name in averages}
        return subject._replace(net=net)

    @staticmethod
    def _shrunk(weight: Tensor, average: Tensor, settings: Tensors) -> Tensor:
        axes = tuple(range(1, weight.dim()))
        inner = -(weight * average).sum(dim=axes, keepdim=True)
        lengths = (weight.square().sum(dim=axes, keepdim=True) * average.square().sum(dim=axes, keepdim=True)).sqrt()
        return weight * (inner / lengths.clamp_min(TINY)).clamp(min=settings["least"].to(weight.dtype), max=1.0)


class Fire(AtSwitch):
    """W ← √(d_out / d_in) · polar(W) at a switch (Han et al. 2026), the nearest matrix with orthonormal rows or columns.

    By `iterations` Newton–Schulz steps Z ← (3 Z − Z Zᵀ Z)/2 from Z = W/‖W‖_F; a convolution's weight goes tap by tap. A matrix
    of zeros stays.
    """

    def __init__(self, iterations: int = 10):
        if iterations < 1:
            raise ValueError(f"iterations is {iterations}; a whole number, 1 or more, is expected")
        self.iterations = iterations
        self._weights: tuple[str, ...] = ()

    def init(self, start: Start) -> Memory:
        self._weights = matrix_names(start)
        return {}

    def at_switch(self, subject: Subject, context: Switch) -> Subject:
        return subject._replace(net={name: self._orthogonal(subject.net[name]) for name in self._weights})

    def _orthogonal(self, weight: Tensor) -> Tensor:
        taps = weight.reshape(*weight.shape[:2], -1).movedim(-1, 0)  # [taps, out, in]
        nearest = polar(taps, self.iterations) * sqrt(weight.shape[0] / weight.shape[1])
        return nearest.movedim(0, -1).reshape(weight.shape)


def polar(matrices: Tensor, iterations: int) -> Tensor:
    """The orthogonal factors of [n, rows, columns], by so many Newton–Schulz steps."""
    found = matrices / torch.linalg.matrix_norm(matrices, keepdim=True).clamp_min(TINY)
    for _ in range(iterations):
        found = 1.5 * found - 0.5 * found @ (found.mT @ found)
    return found
