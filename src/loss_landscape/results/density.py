"""The density of a spectrum, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from loss_landscape.nested import as_tensor
from loss_landscape.results.estimate import Estimate
from loss_landscape.results.result import Result, array, table

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False, repr=False)
class Density(Result):
    """The spectrum of a P×P operator as a weighted sum of points, a row for each probe. The weights of a row sum to 1.

    `nodes` and `weights` are [num_probes, m], float64; unused places hold 0. `size` is P. An eigenvalue with |λ| up to
    `zero_threshold` counts as 0. `note` says what went otherwise than asked.

    >>> density = spectral_density(HessianOperator(surface), num_probes=2, lanczos_steps=2)
    >>> density
    Density(P=2, 2 probes of 2 nodes, 1 … 4, trace 5 ± 0)
    >>> round(density.moment(2).value, 3)  # (4² + 1²) / 2
    8.5
    """

    nodes: Tensor
    weights: Tensor
    size: int
    zero_threshold: float
    note: str = ""

    def expectation(self, function: Callable[[Tensor], Tensor]) -> Estimate:
        """The mean of `function` over the P eigenvalues, with its standard error over the probes."""
        known = torch.where(self.nodes.isnan(), torch.nan, function(self.nodes).double())
        terms = torch.where(self.weights == 0, 0, self.weights * known)  # unused places count for nothing, also where f(0) = −∞
        return replace(Estimate.from_samples(terms.sum(dim=1)), note=self.note)

    def trace_of(self, function: Callable[[Tensor], Tensor]) -> Estimate:
        """tr f(H), the sum of `function` over the P eigenvalues."""
        return self.expectation(function).times(self.size)

    @property
    def trace(self) -> Estimate:
        """tr H."""
        return self.trace_of(lambda nodes: nodes)

    @property
    def frobenius_norm(self) -> Estimate:
        """‖H‖_F, the root of tr H²."""
        return self.trace_of(torch.square).root()

    def log_determinant(self, shift: float = 0.0) -> Estimate:
        """log det(H + `shift`·I); NaN where a node is below −shift, as then it may not be positive definite."""
        return self.trace_of(lambda nodes: torch.log(nodes + shift))

    def moment(self, order: int) -> Estimate:
        """The mean of λ to the power `order`, tr(H^order)/P."""
        return self.expectation(lambda nodes: nodes**order)

    @property
    def negative_mass(self) -> Estimate:
        """The share of eigenvalues below 0, those that count as 0 left out."""
        return self.expectation(lambda nodes: nodes < -self.zero_threshold)

    def effective_dimension(self, scale: float) -> Estimate:
        """Σ λ/(λ + `scale`) over the positive eigenvalues: how many are large compared with `scale` > 0."""
        if scale <= 0:
            raise ValueError(f"scale must be > 0, got {scale}")
        return self.trace_of(lambda nodes: nodes.clamp_min(0) / (nodes.clamp_min(0) + scale))

    def epsilon_rank(self, epsilon: float) -> Estimate:
        """How many eigenvalues have |λ| > `epsilon` · max |λ|."""
        threshold = max(epsilon * float(self.nodes.abs().max()), self.zero_threshold)
        return self.trace_of(lambda nodes: nodes.abs() > threshold)

    def density(self, x: Tensor | np.ndarray, sigma: float | None = None) -> Tensor:
        """The density at `x` of any shape, float64, each node smoothed to a Gaussian of width `sigma`; its integral is 1.

        Unless given, `sigma` follows the resolution of m nodes over their range R: R / ((m − 1) √(8 ln 3)) (Papyan 2020).
        """
        x = torch.as_tensor(as_tensor(x), dtype=torch.float64)
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

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The fields by name."""
        numbers = {name: np.array(getattr(self, name)) for name in ("size", "zero_threshold", "note")}
        return {"nodes": array(self.nodes), "weights": array(self.weights), **numbers}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Density:
        """The density of which `to_arrays` made these `arrays`."""
        nodes, weights = (torch.from_numpy(arrays[name]) for name in ("nodes", "weights"))
        return cls(nodes, weights, int(arrays["size"]), float(arrays["zero_threshold"]), str(arrays["note"]))

    def to_pandas(self) -> DataFrame:
        """A row a node in use: `probe`, `node` and `weight`."""
        probe, place = torch.nonzero(self.weights, as_tuple=True)
        found = {"probe": probe, "node": self.nodes[probe, place], "weight": self.weights[probe, place]}
        return table({name: array(column) for name, column in found.items()})

    def __repr__(self) -> str:
        probes, steps = self.nodes.shape
        used = self.nodes[self.weights > 0]
        trace = self.trace
        return (
            f"Density(P={self.size}, {probes} probes of {steps} nodes, {float(used.min()):.3g} … {float(used.max()):.3g}, "
            f"trace {trace.value:.4g} ± {trace.standard_error:.2g})"
        )
