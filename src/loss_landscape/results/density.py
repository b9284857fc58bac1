"""The density of a spectrum, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from loss_landscape.results.estimate import Estimate


@dataclass(frozen=True, eq=False)
class Density:
    """The spectrum of a P×P operator as a weighted sum of points, a row for each probe. The weights of a row sum to 1."""

    nodes: Tensor  # [num_probes, m], float64; unused places hold 0
    weights: Tensor  # [num_probes, m], float64; unused places hold 0
    size: int  # P
    zero: float  # |λ| up to here counts as 0
    note: str = ""  # what went otherwise than asked

    def expectation(self, function: Callable[[Tensor], Tensor]) -> Estimate:
        """The mean of `function` over the P eigenvalues, with its standard error over the probes."""
        known = torch.where(self.nodes.isnan(), torch.nan, function(self.nodes).double())
        terms = torch.where(self.weights == 0, 0, self.weights * known)  # unused places count for nothing, also where f(0) = −∞
        return replace(Estimate.from_samples(terms.sum(dim=1)), note=self.note)

    def trace_of(self, function: Callable[[Tensor], Tensor]) -> Estimate:
        """tr f(H), the sum of `function` over the P eigenvalues."""
        mean = self.expectation(function)
        return replace(mean, value=mean.value * self.size, standard_error=mean.standard_error * self.size)

    @property
    def trace(self) -> Estimate:
        """tr H."""
        return self.trace_of(lambda nodes: nodes)

    @property
    def frobenius_norm(self) -> Estimate:
        """‖H‖_F, the root of tr H²."""
        return self.trace_of(torch.square).root()

    def log_determinant(self, shift: float = 0.0) -> Estimate:
        """log det(H + shift·I); NaN where a node is below −shift, as then it may not be positive definite."""
        return self.trace_of(lambda nodes: torch.log(nodes + shift))

    def moment(self, order: int) -> Estimate:
        """The mean of λ^order, tr(H^order)/P."""
        return self.expectation(lambda nodes: nodes**order)

    @property
    def negative_mass(self) -> Estimate:
        """The share of eigenvalues below 0, those that count as 0 left out."""
        return self.expectation(lambda nodes: nodes < -self.zero)

    def effective_dimension(self, scale: float) -> Estimate:
        """Σ λ/(λ + scale) over the positive eigenvalues: how many are large compared with `scale`."""
        if scale <= 0:
            raise ValueError(f"scale must be > 0, got {scale}")
        return self.trace_of(lambda nodes: nodes.clamp_min(0) / (nodes.clamp_min(0) + scale))

    def epsilon_rank(self, epsilon: float) -> Estimate:
        """How many eigenvalues have |λ| > epsilon · max |λ|."""
        threshold = max(epsilon * float(self.nodes.abs().max()), self.zero)
        return self.trace_of(lambda nodes: nodes.abs() > threshold)

    def density(self, x: Tensor | np.ndarray, sigma: float | None = None) -> Tensor:
        """The density at `x`, float64, each node smoothed to a Gaussian of width `sigma`; its integral is 1.

        Unless given, sigma follows the resolution of m nodes over their range R: R / ((m − 1) √(8 ln 3)) (Papyan 2020).
        """
        x = torch.as_tensor(x, dtype=torch.float64)
        sigma = sigma or self.default_sigma
        bumps = torch.exp(-0.5 * ((x.reshape(-1, 1) - self.nodes.reshape(1, -1)) / sigma) ** 2) @ self.weights.reshape(-1)
        return (bumps / (len(self.nodes) * sigma * math.sqrt(2 * math.pi))).reshape(x.shape)

    @property
    def default_sigma(self) -> float:
        """The smoothing width that `density` takes."""
        used = self.nodes[self.weights > 0]
        spread = float(used.max() - used.min())
        steps = max(self.nodes.shape[1] - 1, 1)
        return spread / (steps * math.sqrt(8 * math.log(3))) or max(1e-3 * float(used.abs().max()), 1e-12)
