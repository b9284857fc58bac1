"""The whole spectrum of a curvature operator from a few products: stochastic Lanczos quadrature."""

from __future__ import annotations

import torch
from torch import Tensor

from loss_landscape.krylov import tridiagonal
from loss_landscape.operator import CurvatureOperator
from loss_landscape.results import Density
from loss_landscape.traces import OnOutOfMemory, rademacher


def spectral_density(
    operator: CurvatureOperator,
    num_probes: int = 8,
    lanczos_steps: int = 50,
    generator: torch.Generator | None = None,
    zero_epsilon: float = 1e-3,
    *,
    on_oom: OnOutOfMemory = "error",
) -> Density:
    """The spectral density by Lanczos from `num_probes` random sign vectors, `lanczos_steps` products each (Ubaru et al. 2017).

    Each probe's nodes and weights integrate polynomials up to degree 2·lanczos_steps − 1 exactly, so the trace and the moments
    are Hutchinson's. The basis, `lanczos_steps` vectors [P], is kept and reorthogonalised, hence no ghost values.

    Eigenvalues up to `zero_epsilon` times the largest |node| count as zero: a few nodes scatter the null space of a net with more
    parameters than data to either side of 0, further than rounding would.

    `on_oom="fewer_probes"`: out of memory after two probes or more it ends with those, and `note` says so.
    """
    if num_probes < 1 or lanczos_steps < 1:
        raise ValueError(f"num_probes and lanczos_steps must be ≥ 1, got {num_probes} and {lanczos_steps}")
    if not 0 <= zero_epsilon < 1:
        raise ValueError(f"zero_epsilon is relative to the largest |eigenvalue|, ≥ 0 and < 1, got {zero_epsilon}")
    if on_oom not in ("error", "fewer_probes"):
        raise ValueError(f"on_oom must be 'error' or 'fewer_probes', got {on_oom!r}")
    generator = generator or torch.Generator().manual_seed(0)
    steps, note = min(lanczos_steps, operator.size), ""
    rows: list[tuple[Tensor, Tensor]] = []
    while len(rows) < num_probes and not note:
        try:
            rows.append(_quadrature(operator, rademacher(operator, generator), steps))
        except torch.OutOfMemoryError:
            if on_oom == "error" or len(rows) < 2:
                raise
            note = f"out of memory: {len(rows)} of {num_probes} probes"
    nodes, weights = (_padded(part, steps) for part in zip(*rows, strict=True))
    zero = max(zero_epsilon, 10 * torch.finfo(operator.dtype).eps) * float(nodes.abs().max())
    return Density(nodes, weights, operator.size, zero, note)


def _quadrature(operator: CurvatureOperator, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights [≤ steps] of the measure that `start` sees; one node, NaN, where products are not finite."""
    matrix = tridiagonal(operator, start, steps)
    if not bool(matrix.isfinite().all()):
        return torch.full((1,), torch.nan, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors[0].square()


def _padded(rows: tuple[Tensor, ...], steps: int) -> Tensor:
    """The rows [≤ steps] filled up with zeros, [num_rows, steps]."""
    return torch.stack([torch.nn.functional.pad(row, (0, steps - len(row))) for row in rows])
