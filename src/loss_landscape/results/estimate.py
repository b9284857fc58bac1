"""A value with its standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A value, its standard error, and how many independent samples it rests on. Exact values have error 0."""

    value: float
    standard_error: float
    num_samples: int
    note: str = ""  # what went otherwise than asked

    @classmethod
    def from_samples(cls, samples: Tensor) -> Estimate:
        """The mean of independent samples [n]; the error of a single one is unknown, NaN."""
        samples = samples.double()
        count = len(samples)
        error = float(samples.std()) / math.sqrt(count) if count > 1 else math.nan
        return cls(float(samples.mean()), error, count)

    def root(self) -> Estimate:
        """The square root, its error to first order."""
        root = math.sqrt(self.value)
        return replace(self, value=root, standard_error=self.standard_error / (2 * root) if root else self.standard_error)
