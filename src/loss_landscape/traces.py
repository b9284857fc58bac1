"""The trace of a curvature operator, with an honest standard error."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from loss_landscape.operator import CurvatureOperator
from loss_landscape.results import Estimate

BLOCK = 8  # columns held at a time; each probe is drawn by itself, so the draws do not depend on it


def trace(
    operator: CurvatureOperator,
    method: Literal["hutchinson", "hutch++", "xtrace"] = "hutchinson",
    num_products: int = 100,
    generator: torch.Generator | None = None,
) -> Estimate:
    """tr H from at most `num_products` products; exact, with error 0, where these suffice for every column.

    Hutchinson is unbiased for any spectrum. Hutch++ (Meyer et al. 2021) and XTrace (Epperly et al. 2024) need fewer products
    where a few eigenvalues dominate, and hold num_products/3 and num_products/2 vectors in memory.
    """
    if method not in ("hutchinson", "hutch++", "xtrace"):
        raise ValueError(f"method must be 'hutchinson', 'hutch++' or 'xtrace', got {method!r}")
    if num_products >= operator.size:
        return exact(operator)
    least = {"hutchinson": 2, "hutch++": 6, "xtrace": 4}[method]
    if num_products < least:
        raise ValueError(f"{method} needs num_products ≥ {least} to know its own error, got {num_products}")
    generator = generator or torch.Generator().manual_seed(0)
    return {"hutchinson": hutchinson, "hutch++": hutch_plus_plus, "xtrace": xtrace}[method](operator, num_products, generator)


def exact(operator: CurvatureOperator) -> Estimate:
    """The trace from all P columns."""
    total = 0.0
    for first in range(0, operator.size, BLOCK):
        columns = torch.zeros(operator.size, min(BLOCK, operator.size - first), dtype=operator.dtype, device=operator.device)
        rows = torch.arange(columns.shape[1], device=operator.device)
        columns[first + rows, rows] = 1
        total += float((operator @ columns)[first + rows, rows].double().sum())
    return Estimate(total, 0.0, operator.size)


def hutchinson(operator: CurvatureOperator, num_products: int, generator: torch.Generator) -> Estimate:
    """The mean of zᵀHz over random sign vectors; its variance is 2(‖H‖²_F − Σ H²ᵢᵢ)/num_products."""
    return Estimate.from_samples(_quadratic_forms(operator, num_products, generator, torch.empty(operator.size, 0)))


def hutch_plus_plus(operator: CurvatureOperator, num_products: int, generator: torch.Generator) -> Estimate:
    """The trace on the range of a sketch, exactly, and Hutchinson on what is left: a third of the products each."""
    third = num_products // 3
    signs = torch.stack([rademacher(operator, generator) for _ in range(third)], dim=1)
    images = operator @ signs
    if not bool(torch.isfinite(images).all()):
        return Estimate(math.nan, math.nan, num_products)
    basis = torch.linalg.qr(images)[0]
    inside = float((basis * (operator @ basis)).double().sum())
    outside = Estimate.from_samples(_quadratic_forms(operator, num_products - 2 * third, generator, basis))
    return Estimate(inside + outside.value, outside.standard_error, outside.num_samples)


def xtrace(operator: CurvatureOperator, num_products: int, generator: torch.Generator) -> Estimate:
    """Hutch++ with each test vector left out in turn, from the same products.

    The samples share vectors, so their spread understates the error by 4–24 %: the standard error is 1.3 times the textbook one.
    """
    count = num_products // 2
    size = operator.size
    # uniform on a sphere, not signs: the correction `scale` below is exact for a direction that prefers none
    drawn = torch.stack([_spherical(operator, generator) for _ in range(count)], dim=1)  # [P, m]
    images = operator @ drawn
    if not bool(torch.isfinite(images).all()):
        return Estimate(math.nan, math.nan, count)
    left, singular, _ = torch.linalg.svd(images, full_matrices=False)
    if singular[-1] <= singular[0] * size * torch.finfo(images.dtype).eps:  # the sketch holds all of the range
        basis = left[:, singular > singular[0] * size * torch.finfo(images.dtype).eps]
        return Estimate(float((basis * (operator @ basis)).double().sum()), 0.0, count)
    basis, triangle = torch.linalg.qr(images)
    inner = (basis.T @ (operator @ basis)).double()  # QᵀHQ
    triangle, projected = triangle.double(), (basis.T @ drawn).double()
    left_out = torch.linalg.inv(triangle).T
    left_out = left_out / left_out.norm(dim=0)  # sᵢ: what the range loses without vector i
    overlap = (left_out * projected).sum(dim=0)
    rest = projected - left_out * overlap
    scale = (size - count + 1) / (size - rest.square().sum(dim=0))
    # on the residual: (I − QᵢQᵢᵀ)ωᵢ, of squared length P − ‖rest‖², brought to that of a random vector in that space
    residual = _residual_forms(inner, triangle, projected, rest)
    samples = inner.trace() - (left_out * (inner @ left_out)).sum(dim=0) + residual * scale
    return Estimate(float(samples.mean()), 1.3 * float(samples.std()) / math.sqrt(count), count)


def rademacher(operator: CurvatureOperator, generator: torch.Generator) -> Tensor:
    """A vector [P] of random signs."""
    signs = torch.randint(0, 2, (operator.size,), generator=generator, device=generator.device) * 2 - 1
    return signs.to(operator.device, operator.dtype)


def _spherical(operator: CurvatureOperator, generator: torch.Generator) -> Tensor:
    """A vector [P] of length √P in a random direction."""
    drawn = torch.randn(operator.size, generator=generator, dtype=torch.float64, device=generator.device)
    return (drawn * (operator.size**0.5 / drawn.norm())).to(operator.device, operator.dtype)


def _residual_forms(inner: Tensor, triangle: Tensor, projected: Tensor, rest: Tensor) -> Tensor:
    """(ωᵢ − Q restᵢ)ᵀ H (ωᵢ − Q restᵢ), from Hω = QR."""
    straight = (projected * triangle).sum(dim=0)
    crossed = (rest * triangle).sum(dim=0)
    return straight - 2 * crossed + (rest * (inner @ rest)).sum(dim=0)


def _quadratic_forms(operator: CurvatureOperator, count: int, generator: torch.Generator, basis: Tensor) -> Tensor:
    """zᵀHz [count] for sign vectors z without their part in the columns of `basis` [P, k]."""
    forms = []
    basis = basis.to(operator.device, operator.dtype)
    for first in range(0, count, BLOCK):
        probes = torch.stack([rademacher(operator, generator) for _ in range(min(BLOCK, count - first))], dim=1)
        probes = probes - basis @ (basis.T @ probes)
        forms.append((probes.double() * (operator @ probes).double()).sum(dim=0))
    return torch.cat(forms).cpu()
