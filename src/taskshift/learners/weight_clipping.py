"""Weights that stay within a multiple of their initial bound."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch

from taskshift.learners.interventions import AfterStep
from taskshift.learners.matrices import as_matrix, matrix_names
from taskshift.learners.part import Context, Memory, Start, Subject
from taskshift.quantities import Quantity


class WeightClipping(AfterStep):
    """θ ← clip(θ, ±kappa / √fan-in) after each step, for weights and their layers' biases (Elsayed et al. 2024).

    1/√fan-in bounds torch's own initial weights and biases. Norm layers are not clipped. `layers` is a glob of the names of the
    weights that are.
    """

    quantities = (
        Quantity(
            "clipped",
            "weights and biases that the clip changed",
            "weights",
            "Elsayed et al. 2024; `kappa`",
            "weights clipped in an epoch",
        ),
    )

    def __init__(self, kappa: float, layers: str = "*"):
        if not kappa > 0:
            raise ValueError(f"kappa is {kappa}; the bound, in initial bounds, is above 0")
        self.kappa, self.layers = kappa, layers
        self._bounds: dict[str, float] = {}  # of one κ

    def settings(self) -> Mapping[str, float]:
        return {"kappa": self.kappa}

    def init(self, start: Start) -> Memory:
        known = matrix_names(start)
        weights = [name for name in known if fnmatchcase(name, self.layers)]
        if not weights:
            raise ValueError(f"layers={self.layers!r} names none of the net's weights: {', '.join(known)}")
        for name in weights:
            bound = as_matrix(start.net[name]).shape[1] ** -0.5
            bias = f"{name.removesuffix('weight')}bias"
            self._bounds |= {tensor: bound for tensor in (name, bias) if tensor in start.trained}
        return {}

    def after_step(self, subject: Subject, context: Context) -> Subject:
        clipped, counts = {}, []
        for name, bound in self._bounds.items():
            most = context.settings["kappa"] * bound
            clipped[name] = subject.net[name].clamp(-most, most)
            counts.append((subject.net[name].abs() > most).sum())
        return subject._replace(net=clipped, numbers={"clipped": torch.stack(counts).sum()})
