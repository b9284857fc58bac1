"""A value with its standard error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from loss_landscape.results.result import Result, array


@dataclass(frozen=True, repr=False)
class Estimate(Result):
    """A `value`, its `standard_error`, and how many independent samples it rests on. Exact values have error 0.

    `num_samples` counts the samples. `samples` [num_samples], float64, are these where they are known: `value` is their mean, or,
    of a norm, the root of their mean. `note` says what went otherwise than asked.

    >>> estimate = Estimate.from_samples(torch.tensor([1.0, 2.0, 3.0]))
    >>> estimate
    Estimate(2 ± 0.577, 3 samples)
    >>> estimate.samples.tolist()
    [1.0, 2.0, 3.0]
    """

    value: float
    standard_error: float
    num_samples: int
    note: str = ""
    samples: Tensor | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if math.isnan(self.value):  # also of a sum over all columns, which has no error
            object.__setattr__(self, "standard_error", math.nan)

    @classmethod
    def from_samples(cls, samples: Tensor) -> Estimate:
        """The mean of independent `samples` [n]; the error of a single one is unknown, NaN."""
        samples = samples.double()
        count = len(samples)
        error = float(samples.std()) / math.sqrt(count) if count > 1 else math.nan
        return cls(float(samples.mean()), error, count, samples=samples)

    def root(self) -> Estimate:
        """The square root, its error to first order; `samples` stay those of the square."""
        root = math.sqrt(self.value)
        return replace(self, value=root, standard_error=self.standard_error / (2 * root) if root else self.standard_error)

    def times(self, factor: float) -> Estimate:
        """The value `factor` times as large, with its error and its samples."""
        samples = None if self.samples is None else self.samples * factor
        return replace(self, value=self.value * factor, standard_error=self.standard_error * factor, samples=samples)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The fields by name; `samples` is left out where they are unknown."""
        numbers = {name: np.array(getattr(self, name)) for name in ("value", "standard_error", "num_samples", "note")}
        return numbers if self.samples is None else {**numbers, "samples": array(self.samples)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Estimate:
        """The estimate of which `to_arrays` made these `arrays`."""
        samples = torch.from_numpy(arrays["samples"]) if "samples" in arrays else None
        value, error, count = float(arrays["value"]), float(arrays["standard_error"]), int(arrays["num_samples"])
        return cls(value, error, count, str(arrays["note"]), samples)

    def __repr__(self) -> str:
        note = f", {self.note}" if self.note else ""
        return f"Estimate({self.value:.4g} ± {self.standard_error:.3g}, {self.num_samples} samples{note})"
