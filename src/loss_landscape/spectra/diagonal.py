"""The diagonal of a curvature operator, entry by entry, with standard errors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loss_landscape.operators.base import CurvatureOperator
from loss_landscape.randomness import GeneratorLike, generator_from
from loss_landscape.spectra.traces import BLOCK, rademacher, unit_columns


@dataclass(frozen=True, eq=False)
class DiagonalEstimate:
    """The diagonal of a P×P operator. Exact values have errors of 0."""

    values: Tensor  # [P], float64
    standard_errors: Tensor  # [P], float64
    num_samples: int


def diagonal(operator: CurvatureOperator, num_products: int = 100, generator: GeneratorLike = None) -> DiagonalEstimate:
    """The diagonal from `num_products` products, the mean of z ∘ Hz over random sign vectors z (Bekas et al. 2007).

    An entry's variance is Σⱼ≠ᵢ H²ᵢⱼ / num_products: where a row's other entries outweigh it, its error does too. Exact where
    the products suffice for every column.
    """
    if num_products >= operator.size:
        return _exact(operator)
    if num_products < 2:
        raise ValueError(f"diagonal needs num_products ≥ 2 to know its own errors, got {num_products}")
    generator = generator_from(generator)
    total = squares = torch.zeros(operator.size, dtype=torch.float64, device=operator.device)
    for first in range(0, num_products, BLOCK):
        width = min(BLOCK, num_products - first)
        signs = torch.stack([rademacher(operator, generator) for _ in range(width)], dim=1)
        samples = (signs * (operator @ signs)).double()
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
