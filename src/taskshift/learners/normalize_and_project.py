"""Weights whose norms stay what they were."""

from __future__ import annotations

import torch
from torch import Tensor

from taskshift.learners.interventions import AfterStep
from taskshift.learners.matrices import matrix_names
from taskshift.learners.part import Context, Memory, Start, Subject


class Project(AfterStep):
    """W ← W · ‖W₀‖_F / ‖W‖_F after each step, for each weight (Lyle et al. 2024): the projection of normalize-and-project.

    The other half is the net's: norm layers before every activation, `net.norm=layer`. Biases and norm layers are left alone.
    """

    def __init__(self) -> None:
        self._weights: tuple[str, ...] = ()

    def init(self, start: Start) -> Memory:
        self._weights = matrix_names(start)
        return {"norms": {name: torch.linalg.vector_norm(start.net[name]) for name in self._weights}}

    def after_step(self, subject: Subject, context: Context) -> Subject:
        norms = subject.memory["norms"]
        return subject._replace(net={name: _scaled(subject.net[name], norms[name]) for name in self._weights})


def _scaled(weight: Tensor, norm: Tensor) -> Tensor:
    """`weight` with this norm; zeros stay zeros."""
    return weight * (norm / torch.linalg.vector_norm(weight).clamp_min(torch.finfo(weight.dtype).tiny))
