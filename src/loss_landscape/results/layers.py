"""How curved the loss is, a row a layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np

from loss_landscape.results.estimate import Estimate
from loss_landscape.results.result import Result, table

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = ("name", "num_parameters", "top_eigenvalue", "residual", "converged")
TRACE = ("value", "standard_error", "num_samples", "note")


@dataclass(frozen=True)
class LayerCurvature:
    """One diagonal block of the Hessian: that of `num_parameters` parameters of the layer or glob `name`.

    `top_eigenvalue` is the block's largest, `residual` its residual relative to the block's largest |value|, `converged` says
    whether that is within the tolerance. `trace` is the block's, an Estimate.

    >>> row = layer_curvature(surface)[0]
    >>> row.name, row.num_parameters, row.converged, row.trace
    ('weight', 2, True, Estimate(5 ± 0, 2 samples))
    """

    name: str
    num_parameters: int
    top_eigenvalue: float
    residual: float
    converged: bool
    trace: Estimate


class LayerCurvatures(Sequence[LayerCurvature], Result):
    """The curvatures of a net's layers, `rows` of LayerCurvature in the order of the parameters.

    >>> rows = layer_curvature(surface)
    >>> [(row.name, round(row.top_eigenvalue, 3), row.trace.value) for row in rows]
    [('weight', 4.0, 5.0)]
    """

    def __init__(self, rows: Sequence[LayerCurvature]):
        self.rows = tuple(rows)

    @overload
    def __getitem__(self, index: int) -> LayerCurvature: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[LayerCurvature, ...]: ...

    def __getitem__(self, index: int | slice) -> LayerCurvature | tuple[LayerCurvature, ...]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[LayerCurvature]:
        return iter(self.rows)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """A column a field, [num_rows]; the trace by its value, standard error, number of samples and note."""
        columns = {name: np.array([getattr(row, name) for row in self.rows]) for name in COLUMNS}
        return columns | {f"trace_{part}": np.array([getattr(row.trace, part) for row in self.rows]) for part in TRACE}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> LayerCurvatures:
        """The rows of which `to_arrays` made these `arrays`."""
        traces = [Estimate(*parts) for parts in zip(*(arrays[f"trace_{part}"].tolist() for part in TRACE), strict=True)]
        columns = [arrays[name].tolist() for name in COLUMNS]
        return cls([LayerCurvature(*fields) for fields in zip(*columns, traces, strict=True)])

    def to_pandas(self) -> DataFrame:
        """A row a layer."""
        return table(self.to_arrays())

    def __repr__(self) -> str:
        if not self.rows:
            return "LayerCurvatures(no layer)"
        sharpest = max(self.rows, key=lambda row: row.top_eigenvalue)
        return f"LayerCurvatures({len(self)} layers, the sharpest {sharpest.name} with {sharpest.top_eigenvalue:.4g})"
