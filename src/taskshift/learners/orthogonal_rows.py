"""Rows made orthogonal, in a metric, to the other rows of a matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from taskshift.learners.layer_inputs import times

RIDGE = 1e-6  # of the mean energy of the kept rows
PIVOT = 1e-12  # of a new row's, beside those before it
UNSEEN = 1e-7  # of its usual length: a row in directions in which the inputs do not vary
TINY = 1e-30


def energies(rows: Tensor, metric: Tensor) -> Tensor:
    """‖w‖² in the metric, [n, 1]."""
    return (times(rows, metric) * rows).sum(dim=1, keepdim=True).clamp_min(0)


def variance(metric: Tensor) -> Tensor:
    """The metric's mean along the axes, tr Σ / d."""
    return (metric if metric.dim() == 1 else metric.diagonal(dim1=-2, dim2=-1)).mean()


def orthogonal_rows(rows: Tensor, chosen: Tensor, metric: Tensor, *, at_most: int) -> tuple[Tensor, Tensor, Tensor]:
    """New rows [r, d] for `chosen` ones [n] of `rows` [n, d], their numbers [r], and the energy ‖w‖² [n] of the rows as they are.

    The first of the r = `at_most` are the chosen rows' in order: what of each is orthogonal to the rows that are kept and to
    those before it, of length 1 in the metric. Where the kept rows span all that the metric sees, the little that the ridge
    leaves is longest where they are shortest: the directions that are covered least.
    """
    order = chosen.to(torch.int8).argsort(descending=True, stable=True)[:at_most]
    kept, number = ~chosen, (~chosen).sum().clamp_min(1)
    seen = times(rows, metric)
    gram = (seen @ rows.mT).double()
    energy = gram.diagonal(dim1=-2, dim2=-1)
    ridge = (RIDGE * torch.where(kept, energy, 0.0).sum() / number).clamp_min(TINY)
    system = torch.where(kept[:, None] & kept, gram, 0.0) + torch.diag_embed(torch.where(kept, ridge, 1.0))
    new = rows[order]
    for _ in range(2):  # once more for what rounding left, or towards what is covered least
        inner = torch.where(kept[:, None], (seen @ new.mT).double(), 0.0)
        new = _of_length_one(new - torch.linalg.solve_ex(system, inner).result.to(rows.dtype).mT @ rows, metric)
    return _orthonormal(new, chosen[order], metric), order, energy.to(rows.dtype)


def _of_length_one(rows: Tensor, metric: Tensor) -> Tensor:
    """Of length 1 in the metric, but for rows that it hardly sees."""
    seen = energies(rows, metric).sqrt()
    usual = rows.norm(dim=1, keepdim=True) * variance(metric).sqrt()
    return rows / seen.maximum(UNSEEN * usual).clamp_min(TINY)


def _orthonormal(rows: Tensor, wanted: Tensor, metric: Tensor) -> Tensor:
    """Gram and Schmidt's, in the metric, of the `wanted` rows [r], by a Cholesky factor; the others come out as they are."""
    gram = (times(rows, metric) @ rows.mT).double()
    gram = torch.where(wanted[:, None] & wanted, gram, 0.0) + torch.diag_embed(torch.where(wanted, PIVOT, 1.0).to(gram.dtype))
    factor = torch.linalg.cholesky_ex(gram).L
    return torch.linalg.solve_triangular(factor, rows.double(), upper=False).to(rows.dtype)
