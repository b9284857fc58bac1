"""Ways to write a layer's weight by other parameters. Each takes the weight that was drawn as it is: the same function at first.

A weight is seen as the matrix [units, fan-in]. The maps are torch's parametrisations: `right_inverse` gives the parameters of a
weight, `forward` the weight of the parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FixedNorm(nn.Module):
    """W_i = c_i V_i / ‖V_i‖ for each unit or channel i, c_i a constant: the norm with which it was drawn."""

    norms: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer("norms", _row_norms(weight.detach()))

    def forward(self, free: Tensor) -> Tensor:
        """V → W."""
        return self.norms * free / _row_norms(free).clamp_min(torch.finfo(free.dtype).tiny)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """V = W, whose norms are the constants from now on."""
        self.norms.copy_(_row_norms(weight))
        return weight


class SVD(nn.Module):
    """W = N diag(σ) C, the three trained freely; at first the singular value decomposition of the weight that was drawn."""

    def __init__(self, shape: torch.Size):
        super().__init__()
        self.shape = shape

    def forward(self, left: Tensor, values: Tensor, right: Tensor) -> Tensor:
        """N [units, r], σ [r], C [r, fan-in] → W."""
        return ((left * values) @ right).reshape(self.shape)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The thin decomposition, r = min(units, fan-in)."""
        left, values, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
        return left.contiguous(), values, right.contiguous()


class FullRankProjection(nn.Module):
    """W = P F: a map F to at least as many dimensions as come in, then a fixed projection P with orthonormal rows.

    Of a layer that has as many units as inputs, or more, P is the identity. For a convolution the dimensions are channels.
    """

    projection: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        units, inputs = weight.shape[:2]
        dimensions = max(units, inputs)
        drawn = torch.linalg.qr(torch.randn(dimensions, units))[0].T if units < inputs else torch.eye(units)
        self.register_buffer("projection", drawn.to(weight).contiguous())

    def forward(self, full: Tensor) -> Tensor:
        """F [dimensions, inputs, …] → W [units, inputs, …]."""
        return torch.tensordot(self.projection, full, dims=1)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """F = Pᵀ W, and beside P's rows what is drawn as large as W: P F = W, and F has full rank."""
        within = torch.tensordot(self.projection.T, weight, dims=1)
        if len(self.projection) == self.projection.shape[1]:
            return within
        drawn = torch.randn(within.shape, dtype=weight.dtype, device=weight.device) * weight.std()
        return within + drawn - torch.tensordot(self.projection.T @ self.projection, drawn, dims=1)


def _row_norms(weight: Tensor) -> Tensor:
    """‖W_i‖ [units, 1, …], which broadcasts over the weight."""
    return weight.square().sum(dim=tuple(range(1, weight.dim())), keepdim=True).sqrt()
