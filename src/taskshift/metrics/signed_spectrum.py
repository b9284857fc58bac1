"""How much of a spectral density lies on either side of zero, and how far out.

From a quadrature by stochastic Lanczos: `num_probes` rows of nodes θ and weights w ≥ 0 that sum to 1, [n, m] each. Every function
gives a value per probe, [n], so that their spread says how exact the mean is. Nodes are Ritz values, not eigenvalues: only their
weights say how many eigenvalues they stand for, so none of these counts nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class SignedSpectrum:
    """A quadrature whose nodes up to `zero` on either side count as zero: a quadrature of few nodes cannot tell their signs."""

    nodes: Tensor  # [n, m], float64
    weights: Tensor  # [n, m]; 0 where a probe has fewer nodes
    zero: float

    @cached_property
    def _below(self) -> Tensor:
        return self.nodes < -self.zero

    @cached_property
    def _above(self) -> Tensor:
        return self.nodes > self.zero

    def negative_mass(self) -> Tensor:
        """Σ w over θ < -zero, the share of eigenvalues below zero."""
        return self._share(self._below)

    def positive_mass(self) -> Tensor:
        """Σ w over θ > zero."""
        return self._share(self._above)

    def zero_mass(self) -> Tensor:
        """Σ w over |θ| ≤ zero."""
        return self._share(~(self._below | self._above))

    def negative_fraction(self) -> Tensor:
        """Negative mass over negative and positive mass together."""
        return self.negative_mass() / (self.negative_mass() + self.positive_mass())

    def signed_balance(self) -> Tensor:
        """Positive minus negative mass."""
        return self.positive_mass() - self.negative_mass()

    def extreme_ratio(self) -> Tensor:
        """re = |θ_min / θ_max| of each probe's own extremes."""
        live = self.weights > 0
        smallest = torch.where(live, self.nodes, torch.inf).amin(dim=1)
        largest = torch.where(live, self.nodes, -torch.inf).amax(dim=1)
        return (smallest / largest).abs()

    def weighted_ratio(self, power: float = 0.5) -> Tensor:
        """K_h(n) = Σ_{θ<-zero} |θw|ⁿ / Σ_{θ>zero} (θw)ⁿ with n = `power`."""
        terms = (self.nodes * self.weights).abs() ** power
        return (terms * self._below).sum(dim=1) / (terms * self._above).sum(dim=1)

    def _share(self, chosen: Tensor) -> Tensor:
        return (self.weights * chosen).sum(dim=1)
