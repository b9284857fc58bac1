"""The diagonal of an operator, entry by entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from loss_landscape.results.result import Result, array, table

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False, repr=False)
class DiagonalEstimate(Result):
    """The diagonal of a P×P operator: `values` and `standard_errors` [P], float64, from `num_samples` samples each.

    Exact values have errors of 0.

    >>> entries = diagonal(HessianOperator(surface))
    >>> entries
    DiagonalEstimate(P=2, 1 … 4, exact)
    >>> entries.values
    tensor([4., 1.], dtype=torch.float64)
    """

    values: Tensor
    standard_errors: Tensor
    num_samples: int

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The fields by name."""
        errors, count = array(self.standard_errors), np.array(self.num_samples)
        return {"values": array(self.values), "standard_errors": errors, "num_samples": count}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> DiagonalEstimate:
        """The diagonal of which `to_arrays` made these `arrays`."""
        values, errors = (torch.from_numpy(arrays[name]) for name in ("values", "standard_errors"))
        return cls(values, errors, int(arrays["num_samples"]))

    def to_pandas(self) -> DataFrame:
        """A row a parameter: `value` and `standard_error`."""
        return table({"value": array(self.values), "standard_error": array(self.standard_errors)})

    def __repr__(self) -> str:
        is_exact = not bool(self.standard_errors.any())
        found = "exact" if is_exact else f"{self.num_samples} samples, errors up to {float(self.standard_errors.max()):.3g}"
        return f"DiagonalEstimate(P={len(self.values)}, {float(self.values.min()):.3g} … {float(self.values.max()):.3g}, {found})"
