"""The curvature at a point in a few numbers, each with its error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loss_landscape.results.documented import Documented
from loss_landscape.results.eigenpairs import Eigenpairs
from loss_landscape.results.estimate import Estimate


@dataclass(frozen=True, eq=False, repr=False)
class HessianMetrics(Documented):
    """Eigenvalues with their residuals, and the trace with its standard error; also by the documented keys.

    `eigenvalues` are the `num_top` largest, descending, then the smallest, `residuals` ‖Hx − λx‖ over the largest |λ|,
    `converged` which are within the tolerance. `trace` is an Estimate, `size` the number of parameters, `notes` say what must be
    known. The keys epochs, max_eigenvalue, trace and top_eigenvalues hold lists with an entry for each `epoch`, here one. `pairs`
    has the vectors, where they are at hand.

    >>> Explorer(model, nn.MSELoss(), batches).compute_hessian_metrics(top_k=1)
    HessianMetrics(λ_max 4, trace 5 ± 0, converged)
    """

    eigenvalues: tuple[float, ...]
    residuals: tuple[float, ...]
    converged: tuple[bool, ...]
    num_top: int
    trace: Estimate
    size: int
    epoch: float = 0
    notes: tuple[str, ...] = ()
    pairs: Eigenpairs | None = None

    @classmethod
    def of(cls, pairs: Eigenpairs, trace: Estimate, *, epoch: float, notes: tuple[str, ...]) -> HessianMetrics:
        """The numbers of the eigenpairs `pairs` and of a `trace`, at an `epoch`, with `notes` on them."""
        told = tuple(note for note in (pairs.note, trace.note, *notes) if note)
        values, residuals, converged = (tuple(column.tolist()) for column in (pairs.values, pairs.residuals, pairs.converged))
        return cls(values, residuals, converged, pairs.num_top, trace, len(pairs.vectors), epoch, told, pairs)

    @property
    def top_eigenvalues(self) -> tuple[float, ...]:
        """The largest, descending."""
        return self.eigenvalues[: self.num_top]

    @property
    def max_eigenvalue(self) -> float:
        """λ_max, the algebraically largest."""
        return self.eigenvalues[0]

    @property
    def min_eigenvalue(self) -> float | None:
        """λ_min, where it was solved for."""
        return self.eigenvalues[self.num_top] if len(self.eigenvalues) > self.num_top else None

    @property
    def errors(self) -> tuple[float, ...]:
        """‖Hx − λx‖ of each eigenvalue, in its own unit: within so much of it the Hessian has one."""
        largest = max(map(abs, self.eigenvalues), default=0.0)
        return tuple(residual * largest for residual in self.residuals)

    def documented(self) -> dict[str, Any]:
        """The numbers as lists with an entry for this epoch."""
        return {
            "epochs": [self.epoch],
            "max_eigenvalue": [self.max_eigenvalue],
            "trace": [self.trace.value],
            "top_eigenvalues": [list(self.top_eigenvalues)],
            "min_eigenvalue": [self.min_eigenvalue],
            "trace_standard_error": [self.trace.standard_error],
            "residuals": [list(self.residuals)],
            "converged": [list(self.converged)],
        }

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold, but for numbers that are not finite; without the vectors."""
        trace = {name: getattr(self.trace, name) for name in ("value", "standard_error", "num_samples", "note")}
        own = {name: getattr(self, name) for name in ("num_top", "size", "epoch")}
        lists = {name: list(getattr(self, name)) for name in ("eigenvalues", "residuals", "converged", "notes")}
        return {**lists, **own, "trace": trace}

    @classmethod
    def from_json(cls, entries: Mapping[str, Any]) -> HessianMetrics:
        """The metrics of which `to_json` made these `entries`."""
        values, residuals, converged, notes = (tuple(entries[n]) for n in ("eigenvalues", "residuals", "converged", "notes"))
        trace = Estimate(**entries["trace"])
        return cls(values, residuals, converged, entries["num_top"], trace, entries["size"], entries["epoch"], notes)

    def __repr__(self) -> str:
        missing = self.converged.count(False)
        state = f"{missing} not converged" if missing else "converged"
        trace = f"trace {self.trace.value:.4g} ± {self.trace.standard_error:.2g}"
        return f"HessianMetrics(λ_max {self.max_eigenvalue:.4g}, {trace}, {state})"
