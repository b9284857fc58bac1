"""The whole spectrum of a curvature operator from a few products: stochastic Lanczos quadrature."""

from __future__ import annotations

import torch
from torch import Tensor

from loss_landscape.krylov import tridiagonal
from loss_landscape.operator import CurvatureOperator
from loss_landscape.results import Density
from loss_landscape.traces import rademacher


def spectral_density(
    operator: CurvatureOperator,
    num_probes: int = 8,
    lanczos_steps: int = 50,
    generator: torch.Generator | None = None,
    zero_epsilon: float = 1e-3,
) -> Density:
    """The spectral density by Lanczos from `num_probes` random sign vectors, `lanczos_steps` products each (Ubaru et al. 2017).

    Each probe's nodes and weights integrate polynomials up to degree 2·lanczos_steps − 1 exactly, so the trace and the moments
    are Hutchinson's. The basis is kept and reorthogonalised, hence no ghost values.

    Eigenvalues up to `zero_epsilon` times the largest |node| count as zero: a few nodes scatter the null space of a net with more
    parameters than data to either side of 0, further than rounding would.
    """
    if num_probes < 1 or lanczos_steps < 1:
        raise ValueError(f"num_probes and lanczos_steps must be ≥ 1, got {num_probes} and {lanczos_steps}")
    if not 0 <= zero_epsilon < 1:
        raise ValueError(f"zero_epsilon is relative to the largest |eigenvalue|, ≥ 0 and < 1, got {zero_epsilon}")
    generator = generator or torch.Generator().manual_seed(0)
    steps = min(lanczos_steps, operator.size)
    nodes = torch.zeros(num_probes, steps, dtype=torch.float64)
    weights = torch.zeros(num_probes, steps, dtype=torch.float64)
    for probe in range(num_probes):
        values, shares = _quadrature(operator, rademacher(operator, generator), steps)
        nodes[probe, : len(values)] = values
        weights[probe, : len(values)] = shares
    zero = max(zero_epsilon, 10 * torch.finfo(operator.dtype).eps) * float(nodes.abs().max())
    return Density(nodes, weights, operator.size, zero)


def _quadrature(operator: CurvatureOperator, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights [≤ steps] of the measure that `start` sees; one node, NaN, where products are not finite."""
    try:
        matrix = tridiagonal(operator, start, steps)
    except FloatingPointError:
        return torch.tensor([torch.nan]), torch.ones(1)
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors[0].square()
