"""Muon: momentum made orthogonal for matrices, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Literal

import torch
from torch import Tensor

from taskshift.learners.part import Context, Slots, Subject, Tensors
from taskshift.learners.rule import Rule
from taskshift.learners.rules.adam import Adam

QUINTIC = (3.4445, -4.7750, 2.0315)
"""a, b, c of X ← a X + (b X Xᵀ + c (X Xᵀ)²) X, chosen by Jordan for the steepest slope at 0: five steps take singular values to
0.7 … 1.2."""
Scale = Literal["original", "match_rms_adamw"]


class Muon(Rule):
    """Weights of two dimensions or more, as matrices [units, fan-in], by Muon, all else by AdamW with `vector_lr` · `lr`.

        M ← μ M + (1 − μ) G,  N = (1 − μ) G + μ M with `nesterov`, else M,  W ← (1 − η λ) W − η s NewtonSchulz(N)

    with s = √max(1, rows/columns), or 0.2 √max(rows, columns) with `scale="match_rms_adamw"` (Jordan 2024; Liu et al. 2025). As
    in torch.optim.Muon the iteration is carried out in bfloat16; torch's own takes matrices alone.
    """

    def __init__(
        self,
        lr: float = 0.01,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        nesterov: bool = True,
        iterations: int = 5,
        scale: Scale = "original",
        vector_lr: float = 0.1,
    ):
        if scale not in ("original", "match_rms_adamw"):
            raise ValueError(f"scale={scale!r} is not known; choose one of original, match_rms_adamw")
        self._settings = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "vector_lr": vector_lr}
        self.nesterov, self.iterations, self.scale = nesterov, iterations, scale
        self._adam = Adam(lr, weight_decay=weight_decay, decoupled=True)

    def settings(self) -> Mapping[str, float]:
        return self._settings

    def first_slots(self, parameters: Tensors) -> Slots:
        matrices = {name: torch.zeros_like(p) for name, p in parameters.items() if p.dim() > 1}
        vectors = {name: p for name, p in parameters.items() if p.dim() < 2}
        return {"momentum_buffer": matrices, **self._adam.first_slots(vectors)}

    def step(self, subject: Subject, context: Context) -> Subject:
        vectors = self._vectors_stepped(subject, context)
        net, momenta = dict(vectors.net), dict[str, Tensor]()
        for name, momentum in subject.slots["momentum_buffer"].items():
            p = subject.net[name]
            by = {key: value.to(p.dtype) for key, value in self._coefficients(context.settings).items()}
            net[name], momenta[name] = self._matrix_stepped(p, context.gradients[name], momentum, by)
        return subject._replace(net=net, slots={**vectors.slots, "momentum_buffer": momenta})

    def _coefficients(self, settings: Tensors) -> dict[str, Tensor]:
        keeps = 1 - settings["lr"] * settings["weight_decay"]
        return {"lr": settings["lr"], "momentum": settings["momentum"], "rest": 1 - settings["momentum"], "keeps": keeps}

    def _matrix_stepped(self, p: Tensor, g: Tensor, momentum: Tensor, by: Tensors) -> tuple[Tensor, Tensor]:
        momentum = torch.lerp(momentum, g, by["rest"])
        direction = torch.lerp(g, momentum, by["momentum"]) if self.nesterov else momentum
        rows, columns = len(p), p[0].numel()
        size = sqrt(max(1, rows / columns)) if self.scale == "original" else 0.2 * sqrt(max(rows, columns))
        turned = orthogonalised(direction.flatten(1), self.iterations).view_as(p).to(p.dtype)
        return p * by["keeps"] - by["lr"] * size * turned, momentum

    def _vectors_stepped(self, subject: Subject, context: Context) -> Subject:
        own = {slot: of for slot, of in subject.slots.items() if slot != "momentum_buffer"}
        net = {name: subject.net[name] for name in next(iter(own.values()))}
        lr, vector_lr = context.settings["lr"], context.settings["vector_lr"]
        defaults = {name: torch.full_like(lr, value) for name, value in self._adam.settings().items()}
        given = {**defaults, **context.settings, "lr": lr * vector_lr}
        return self._adam.step(subject._replace(net=net, slots=own), context._replace(settings=given))


def orthogonalised(matrix: Tensor, iterations: int) -> Tensor:
    """About U Vᵀ of a matrix U S Vᵀ, in bfloat16, by Newton–Schulz iterations (Jordan 2024)."""
    a, b, c = QUINTIC
    wide = matrix.bfloat16()
    if len(matrix) > matrix.shape[1]:
        wide = wide.T
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(iterations):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if len(matrix) > matrix.shape[1] else wide
