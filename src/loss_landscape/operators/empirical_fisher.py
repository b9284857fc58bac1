"""The empirical Fisher matrix of a loss surface."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from loss_landscape.operators.batch_sum import BatchMatrix, BatchSum, DeviceFallback, WeightedTerm
from loss_landscape.operators.gauss_newton import require_one_tensor
from loss_landscape.operators.jacobian_products import retained_product
from loss_landscape.operators.surface_operator import SummedOperator, require_criterion, require_surface
from loss_landscape.surface.surface import LossSurface

THE_MATRIX = "the empirical Fisher matrix"


class EmpiricalFisherOperator(SummedOperator):
    """Σ wᵢ gᵢgᵢᵀ / Σ wᵢ over a `surface`'s examples: gᵢ the gradient of an example's own loss.

    wᵢ is its share of the criterion's denominator. A regulariser belongs to no example and is left out. Memory is used as by
    `HessianOperator`: `memory_budget_mb`, in MiB, and `on_oom` are the same. Raises TypeError for what is no surface, something
    `beside` one, or a net that gives more than one tensor, ValueError for a surface with `batch_loss`.

    >>> EmpiricalFisherOperator(surface) @ torch.eye(2)  # the mean of gᵢgᵢᵀ, g = (8, 0) and (0, 2)
    tensor([[32.,  0.],
            [ 0.,  2.]])
    """

    def __init__(self, surface: LossSurface, *beside: object, memory_budget_mb: int = 2048, on_oom: DeviceFallback = "error"):
        require_surface(surface, type(self), *beside)
        require_criterion(surface, THE_MATRIX)
        super().__init__(surface, BatchSum(surface, _terms, memory_budget_mb, on_oom))


def _terms(surface: LossSurface) -> Iterator[WeightedTerm]:
    """For each batch J the derivative of the examples' own losses and M the diagonal of their shares."""
    for weight, batch in surface.objective.weighted_batches():
        prepared = partial(_retained, surface, batch)
        yield WeightedTerm(weight, prepared, prepared)


def _retained(surface: LossSurface, batch: Any) -> BatchMatrix:
    criterion, leaves = require_criterion(surface, THE_MATRIX), surface.leaves()
    with torch.enable_grad():
        outputs = surface.objective.outputs(leaves, batch)
        require_one_tensor(outputs)
        losses, shares = criterion.example_losses(outputs, batch[1])
    if criterion.reduction != "sum":
        shares = shares / shares.sum()
    return retained_product(surface, leaves, losses, lambda vector: shares * vector)
