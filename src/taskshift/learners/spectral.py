"""Penalties of the singular values of each layer's weight matrix."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from loss_landscape.objective.layout import NORM_LAYERS
from taskshift.learners.matrices import as_matrix, matrix_names
from taskshift.learners.part import Context, Memory, Start, Tensors
from taskshift.learners.regularizers import Weighted


class SpectralRegularization(Weighted):
    """weight [Σ_W (σ₁(W)ᵏ − 1)² + Σ_b ‖b‖²ᵏ + Σ_g Σ (gᵏ − 1)²] (Lewandowski et al. 2025), k = `power`.

    W is a layer's weight as a matrix [units, fan-in], σ₁ its largest singular value, by one step of power iteration a step of
    the optimizer, from the last step's vector; b are biases and norm layers' shifts, g norm layers' scales. Other parameters are
    left alone.
    """

    def __init__(self, weight: float, power: int = 2):
        super().__init__(weight)
        if power < 1:
            raise ValueError(f"power is {power}; a whole number, 1 or more, is expected")
        self.power = power
        self.matrices: tuple[str, ...] = ()
        self.biases: tuple[str, ...] = ()
        self.scales: tuple[str, ...] = ()

    def init(self, start: Start) -> Memory:
        self.matrices = matrix_names(start)
        vectors = [name for name in start.trained if name not in self.matrices]
        self.biases = tuple(name for name in vectors if name.rpartition(".")[2] == "bias")
        normed = {name for name in vectors if isinstance(start.module.get_submodule(name.rpartition(".")[0]), NORM_LAYERS)}
        self.scales = tuple(name for name in vectors if name in normed and name not in self.biases)
        return {"right": {name: _first_vector(as_matrix(start.net[name])) for name in self.matrices}}

    def advance(self, parameters: Tensors, context: Context) -> Memory:
        right = context.memory["right"]
        return {"right": {name: _iterated(as_matrix(parameters[name]), right[name]) for name in self.matrices}}

    def penalty(self, parameters: Tensors, context: Context) -> Tensor:
        terms = []
        for name, parameter in parameters.items():
            if name in self.matrices:
                largest = torch.linalg.vector_norm(as_matrix(parameter) @ context.memory["right"][name])
                terms.append((largest**self.power - 1).square())
            elif name in self.scales:
                terms.append((parameter**self.power - 1).square().sum())
            elif name in self.biases:
                terms.append(parameter.square().sum() ** self.power)
        return context.settings["weight"] * torch.stack(terms).sum()


def _first_vector(matrix: Tensor) -> Tensor:
    """The right singular vector of the largest singular value, as the run begins."""
    return torch.linalg.svd(matrix, full_matrices=False).Vh[0].clone()


def _iterated(matrix: Tensor, right: Tensor) -> Tensor:
    turned = matrix.T @ (matrix @ right)
    length = torch.linalg.vector_norm(turned)
    return torch.where(length > 0, turned / length.clamp_min(torch.finfo(turned.dtype).tiny), right)


class Parseval(Weighted):
    """weight Σ_W ‖W Wᵀ − scale · I‖²_F over weights as matrices [units, fan-in]: their rows become orthogonal.

    Cissé et al. 2017; for plasticity Chung et al. 2024.
    """

    def __init__(self, weight: float, scale: float = 1.0):
        super().__init__(weight)
        if not scale > 0:
            raise ValueError(f"scale is {scale}; the squared length of a row is above 0")
        self.scale = scale
        self.matrices: tuple[str, ...] = ()

    def settings(self) -> Mapping[str, float]:
        return {**super().settings(), "scale": self.scale}

    def init(self, start: Start) -> Memory:
        self.matrices = matrix_names(start)
        return {}

    def penalty(self, parameters: Tensors, context: Context) -> Tensor:
        terms = [self._of(as_matrix(parameters[name]), context.settings["scale"]) for name in self.matrices]
        return context.settings["weight"] * torch.stack(terms).sum()

    @staticmethod
    def _of(matrix: Tensor, scale: Tensor) -> Tensor:
        gram = matrix @ matrix.T
        return (gram - scale * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).square().sum()
