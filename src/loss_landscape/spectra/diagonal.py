"""The diagonal of a curvature operator, entry by entry, with standard errors."""

from __future__ import annotations

import torch
from torch import Tensor

from loss_landscape.operators.base import CurvatureOperator, as_operator
from loss_landscape.randomness import GeneratorLike, generator_from
from loss_landscape.results.diagonal import DiagonalEstimate
from loss_landscape.spectra.probes import BLOCK, Probes, probe_columns, require_known, unit_columns


def diagonal(
    operator: CurvatureOperator | Tensor,
    num_products: int = 100,
    *,
    probes: Probes = "rademacher",
    generator: GeneratorLike = None,
) -> DiagonalEstimate:
    """The diagonal of an `operator` H from `num_products` products, the mean of z ∘ Hz over random vectors z (Bekas et al. 2007).

    An entry's variance is Σⱼ≠ᵢ H²ᵢⱼ / num_products: where a row's other entries outweigh it, its error does too. Exact where
    the products suffice for every column. `probes` are `rademacher` signs, or `normal` numbers, which add 2H²ᵢᵢ to the variance;
    `generator` draws them. Raises ValueError for fewer than 2 products, TypeError for what is no operator.

    >>> diagonal(torch.diag(torch.tensor([3.0, 4.0]))).values
    tensor([3., 4.], dtype=torch.float64)
    """
    operator = as_operator(operator)
    require_known(probes)
    if num_products >= operator.size:
        return _exact(operator)
    if num_products < 2:
        raise ValueError(f"diagonal needs num_products ≥ 2 to know its own errors, got {num_products}")
    generator = generator_from(generator)
    total = squares = torch.zeros(operator.size, dtype=torch.float64, device=operator.device)
    for first in range(0, num_products, BLOCK):
        width = min(BLOCK, num_products - first)
        drawn = probe_columns(operator, width, probes, generator)
        samples = (drawn * (operator @ drawn)).double()
        total, squares = total + samples.sum(dim=1), squares + samples.square().sum(dim=1)
    mean = total / num_products
    variance = (squares / num_products - mean.square()).clamp_min(0) / (num_products - 1)  # of the mean
    return DiagonalEstimate(mean, variance.sqrt(), num_products)


def _exact(operator: CurvatureOperator) -> DiagonalEstimate:
    parts = []
    for first in range(0, operator.size, BLOCK):
        columns = unit_columns(operator, first)
        parts.append((columns * (operator @ columns)).double().sum(dim=1)[first : first + columns.shape[1]])
    values = torch.cat(parts)
    return DiagonalEstimate(values, torch.zeros_like(values), operator.size)
