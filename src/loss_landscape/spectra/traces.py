"""The trace and the Frobenius norm of a curvature operator, with honest standard errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from loss_landscape.operators.base import CurvatureOperator, as_operator
from loss_landscape.randomness import GeneratorLike, generator_from
from loss_landscape.results.estimate import Estimate
from loss_landscape.spectra.probes import BLOCK, Probes, probe_columns, require_known, spherical, unit_columns

ProbeFallback = Literal["error", "fewer_probes"]
TraceMethod = Literal["hutchinson", "hutch++", "xtrace"]
MIN_SAMPLES = 16  # samples before a standard error decides to stop: that of a few is too often too small


def trace(
    operator: CurvatureOperator | Tensor,
    method: TraceMethod = "hutchinson",
    *,
    num_products: int = 100,
    target_error: float | None = None,
    probes: Probes = "rademacher",
    generator: GeneratorLike = None,
    on_oom: ProbeFallback = "error",
) -> Estimate:
    """tr H of an `operator` H, from at most `num_products` products with it; exact, with error 0, where these give every column.

    `method`: `hutchinson` is unbiased for any spectrum, the mean of zᵀHz. `hutch++` (Meyer et al. 2021) and `xtrace` (Epperly et
    al. 2024) need fewer products where a few eigenvalues dominate, and hold about three times `num_products` vectors [P] in
    memory at their peak. With a `target_error`, in the trace's own units, nothing is taken exactly: it ends as soon as the
    standard error is no larger, after 16 samples at the least; `note` says where that was not met. `probes` are `rademacher`
    signs or `normal` numbers, of larger variance; XTrace's are uniform on a sphere by its nature, and it refuses `normal`.
    `generator` draws them.
    `on_oom="fewer_probes"`: out of memory after two samples or more it ends with those, and `note` says so.

    Raises ValueError for too few products or an unknown option, TypeError for what is no operator.

    >>> trace(torch.diag(torch.tensor([3.0, 1.0, -2.0])))
    Estimate(2 ± 0, 3 samples)
    >>> trace(HessianOperator(surface), num_products=50).value  # 4 + 1
    5.0
    """
    operator = as_operator(operator)
    _require_options(method, probes)
    if num_products >= operator.size and target_error is None:
        return _exact(operator)[0]
    sampler = _sampler(method, operator, probes, generator)
    return _sampled(sampler, sampler.estimate, min(num_products, operator.size), target_error, on_oom)


def frobenius_norm(
    operator: CurvatureOperator | Tensor,
    num_products: int = 100,
    *,
    target_error: float | None = None,
    probes: Probes = "rademacher",
    generator: GeneratorLike = None,
    on_oom: ProbeFallback = "error",
) -> Estimate:
    """‖H‖_F of an `operator` H, from at most `num_products` products with it: the root of the mean ‖Hz‖² over random z.

    The error is that of the mean, carried through the root to first order; `samples` are those of the square. `target_error`,
    `probes`, `generator`, `on_oom` and what is raised are as in `trace`.

    >>> frobenius_norm(torch.diag(torch.tensor([3.0, 4.0])))
    Estimate(5 ± 0, 2 samples)
    """
    operator = as_operator(operator)
    _require_options("hutchinson", probes)
    if num_products >= operator.size and target_error is None:
        return _exact(operator)[1]
    sampler = _Hutchinson(operator, probes, generator_from(generator))
    return _sampled(sampler, sampler.norm, min(num_products, operator.size), target_error, on_oom)


def trace_and_frobenius_norm(
    operator: CurvatureOperator | Tensor,
    num_products: int = 100,
    *,
    probes: Probes = "rademacher",
    generator: GeneratorLike = None,
    on_oom: ProbeFallback = "error",
) -> tuple[Estimate, Estimate]:
    """tr H by Hutchinson's method and ‖H‖_F of an `operator` H, both from the same products, `num_products` at most.

    `probes`, `generator`, `on_oom` and what is raised are as in `trace`.

    >>> trace_and_frobenius_norm(torch.diag(torch.tensor([3.0, 4.0])))
    (Estimate(7 ± 0, 2 samples), Estimate(5 ± 0, 2 samples))
    """
    operator = as_operator(operator)
    _require_options("hutchinson", probes)
    if num_products >= operator.size:
        return _exact(operator)
    sampler = _Hutchinson(operator, probes, generator_from(generator))
    total = _sampled(sampler, sampler.estimate, num_products, None, on_oom)
    return total, replace(sampler.norm(), note=total.note)


def _require_options(method: TraceMethod, probes: Probes) -> None:
    if method not in ("hutchinson", "hutch++", "xtrace"):
        raise ValueError(f"method must be 'hutchinson', 'hutch++' or 'xtrace', got {method!r}")
    require_known(probes)
    if method == "xtrace" and probes == "normal":
        raise ValueError("xtrace draws its vectors uniformly on a sphere; leave probes out")


def _sampler(method: TraceMethod, operator: CurvatureOperator, probes: Probes, generator: GeneratorLike) -> _Sampler:
    if method == "xtrace":
        return _XTrace(operator, generator_from(generator))
    kind = _Hutchinson if method == "hutchinson" else _HutchPlusPlus
    return kind(operator, probes, generator_from(generator))


def _exact(operator: CurvatureOperator) -> tuple[Estimate, Estimate]:
    """The trace and the Frobenius norm from all P columns."""
    total = squares = torch.zeros((), dtype=torch.float64, device=operator.device)
    for first in range(0, operator.size, BLOCK):
        columns = unit_columns(operator, first)
        images = operator @ columns
        total, squares = total + _forms(columns, images).sum(), squares + _forms(images, images).sum()
    return Estimate(float(total), 0.0, operator.size), Estimate(float(squares.sqrt()), 0.0, operator.size)


class _Sampler(Protocol):
    """Samples of a trace that grow in number."""

    name: str
    least: int  # products that it takes to know an error
    per_sample: int  # products

    @property
    def count(self) -> int:
        """Samples so far."""

    def extend(self, num_products: int) -> int:
        """Spend at most so many products on more samples; how many it spent. Where it raises, all stays as it was."""

    def estimate(self) -> Estimate:
        """The trace from all samples."""


def _sampled(
    sampler: _Sampler,
    estimate: Callable[[], Estimate],
    num_products: int,
    target_error: float | None,
    on_oom: ProbeFallback,
) -> Estimate:
    """The estimate when the products are spent, its target is met or memory is out; NaN where a product is not finite."""
    _check(sampler, num_products, target_error, on_oom)
    spent, width = 0, BLOCK * sampler.per_sample
    while spent < num_products:
        try:
            used = sampler.extend(min(width, num_products - spent))
        except FloatingPointError:
            return Estimate(math.nan, math.nan, sampler.count)
        except torch.OutOfMemoryError:
            if on_oom == "error":
                raise
            if width > sampler.per_sample:
                width = sampler.per_sample
                continue
            if sampler.count < 2:
                raise
            return replace(estimate(), note=f"out of memory: {spent} of {num_products} products")
        spent += used
        if not used or _is_met(sampler, estimate, target_error):
            break
    found = estimate()
    if target_error is not None and not found.standard_error <= target_error:
        return replace(found, note=f"{spent} products did not bring the standard error to {target_error:g}")
    return found


def _check(sampler: _Sampler, num_products: int, target_error: float | None, on_oom: ProbeFallback) -> None:
    if num_products < sampler.least:
        raise ValueError(f"{sampler.name} needs num_products ≥ {sampler.least} to know its own error, got {num_products}")
    if target_error is not None and not target_error > 0:
        raise ValueError(f"target_error must be > 0, in the units of what is estimated, got {target_error}")
    if on_oom not in ("error", "fewer_probes"):
        raise ValueError(f"on_oom must be 'error' or 'fewer_probes', got {on_oom!r}")


def _is_met(sampler: _Sampler, estimate: Callable[[], Estimate], target_error: float | None) -> bool:
    return target_error is not None and sampler.count >= MIN_SAMPLES and estimate().standard_error <= target_error


class _Hutchinson:
    """zᵀHz and ‖Hz‖² of random vectors z; for signs the variances are 2(‖H‖²_F − Σ H²ᵢᵢ) and, with H², the same."""

    name, least, per_sample = "hutchinson", 2, 1

    def __init__(self, operator: CurvatureOperator, probes: Probes, generator: torch.Generator):
        self.operator, self.kind, self.generator = operator, probes, generator
        self.forms = self.squares = torch.zeros(0, dtype=torch.float64, device=operator.device)

    @property
    def count(self) -> int:
        return len(self.forms)

    def extend(self, num_products: int) -> int:
        probes = probe_columns(self.operator, num_products, self.kind, self.generator)
        images = self.operator @ probes
        self.forms = torch.cat([self.forms, _forms(probes, images)])
        self.squares = torch.cat([self.squares, _forms(images, images)])
        return num_products

    def estimate(self) -> Estimate:
        return Estimate.from_samples(self.forms)

    def norm(self) -> Estimate:
        return Estimate.from_samples(self.squares).root()


class _HutchPlusPlus:
    """The trace on the range of a sketch, exactly, and Hutchinson on what is left: a third of the products each."""

    name, least, per_sample = "hutch++", 6, 3

    def __init__(self, operator: CurvatureOperator, probes: Probes, generator: torch.Generator):
        self.operator, self.kind, self.generator = operator, probes, generator
        none = torch.zeros(operator.size, 0, dtype=operator.dtype, device=operator.device)
        self.basis = self.probes = self.images = none  # [P, n]: the range; what probes have beside it; H · those
        self.inside = 0.0

    @property
    def count(self) -> int:
        return self.probes.shape[1]

    def extend(self, num_products: int) -> int:
        third = num_products // 3
        added = _orthonormal(_finite(self.operator @ probe_columns(self.operator, third, self.kind, self.generator)), self.basis)
        added_images = _finite(self.operator @ added)
        basis = torch.cat([self.basis, added], dim=1)
        fresh = probe_columns(self.operator, num_products - 2 * third, self.kind, self.generator)
        fresh = fresh - basis @ (basis.T @ fresh)
        fresh_images = _finite(self.operator @ fresh)
        seen = added.T @ self.probes  # of the older probes, in what the sketch has learnt since
        self.basis, self.inside = basis, self.inside + float(_forms(added, added_images).sum())
        self.probes = torch.cat([self.probes - added @ seen, fresh], dim=1)
        self.images = torch.cat([self.images - added_images @ seen, fresh_images], dim=1)
        return num_products

    def estimate(self) -> Estimate:
        outside = Estimate.from_samples(_forms(self.probes, self.images))
        samples = None if outside.samples is None else self.inside + outside.samples
        return replace(outside, value=self.inside + outside.value, samples=samples)


class _XTrace:
    """Hutch++ with each test vector left out in turn, from the same products.

    The samples share vectors, so their spread understates the error by 4–24 %: the standard error is 1.3 times the textbook one.
    """

    name, least, per_sample = "xtrace", 4, 2

    def __init__(self, operator: CurvatureOperator, generator: torch.Generator):
        self.operator, self.generator = operator, generator
        none = torch.zeros(operator.size, 0, dtype=operator.dtype, device=operator.device)
        self.drawn = self.basis = none  # Ω [P, m] and Q [P, r] of HΩ = QR
        empty = torch.zeros(0, 0, dtype=torch.float64, device=operator.device)
        self.inner = self.triangle = self.projected = empty  # QᵀHQ [r, r], R [r, m], QᵀΩ [r, m]

    @property
    def count(self) -> int:
        return self.drawn.shape[1]

    def extend(self, num_products: int) -> int:
        count = num_products // 2
        drawn = self._directions(count)
        images = _finite(self.operator @ drawn)
        added = _orthonormal(images, self.basis)
        added_images = _finite(self.operator @ added)
        crossed = (self.basis.T @ added_images).double()
        self.inner = _bordered(self.inner, crossed, crossed.T, (added.T @ added_images).double())
        below = torch.zeros(added.shape[1], self.count, dtype=torch.float64, device=self.operator.device)
        self.triangle = _bordered(self.triangle, (self.basis.T @ images).double(), below, (added.T @ images).double())
        earlier, later = (added.T @ self.drawn).double(), (added.T @ drawn).double()
        self.projected = _bordered(self.projected, (self.basis.T @ drawn).double(), earlier, later)
        self.drawn, self.basis = torch.cat([self.drawn, drawn], dim=1), torch.cat([self.basis, added], dim=1)
        return 2 * count

    def estimate(self) -> Estimate:
        size, (rank, count) = self.operator.size, self.triangle.shape
        inside, rest = self.inner.trace().expand(count), self.projected
        if rank == count:
            left_out = torch.linalg.inv(self.triangle).T
            left_out = left_out / left_out.norm(dim=0)  # sᵢ: what the range loses without vector i
            inside = inside - (left_out * (self.inner @ left_out)).sum(dim=0)
            rest = rest - left_out * (left_out * rest).sum(dim=0)
            rank = rank - 1
        # (I − QᵢQᵢᵀ)ωᵢ, of squared length P − ‖rest‖², brought to that of a random vector in that space
        left = (size - rest.square().sum(dim=0)).clamp_min(1e-3 * size)  # less is rounding: one that lies in the range
        scale = (size - rank) / left
        samples = inside + scale * self._outside(rest)
        error = 1.3 * float(samples.std()) / math.sqrt(count) if count > 1 else math.nan
        return Estimate(float(samples.mean()), error, count, samples=samples)

    def _directions(self, count: int) -> Tensor:
        """Test vectors [P, count] uniform on a sphere, not signs: the correction `scale` is exact for those alone."""
        if not count:
            return self.drawn[:, :0]
        return torch.stack([spherical(self.operator, self.generator) for _ in range(count)], dim=1)

    def _outside(self, rest: Tensor) -> Tensor:
        """(ωᵢ − Q restᵢ)ᵀ H (ωᵢ − Q restᵢ), from HΩ = QR."""
        straight = (self.projected * self.triangle).sum(dim=0)
        crossed = (rest * self.triangle).sum(dim=0)
        return straight - 2 * crossed + (rest * (self.inner @ rest)).sum(dim=0)


def _orthonormal(vectors: Tensor, basis: Tensor) -> Tensor:
    """An orthonormal basis [P, ≤ k] of what `vectors` [P, k] have beside the columns of `basis`; rounding counts for nothing."""
    rest = vectors
    for _ in range(2):
        rest = rest - basis @ (basis.T @ rest)
    columns, triangle = torch.linalg.qr(rest)
    rounding = 100 * torch.finfo(vectors.dtype).eps * vectors.norm(dim=0).max() if vectors.numel() else 0
    return columns[:, triangle.diagonal().abs() > rounding]


def _forms(left: Tensor, right: Tensor) -> Tensor:
    """The inner products [k] of the columns of [P, k] and [P, k], in float64."""
    products = [one.double() @ other.double() for one, other in zip(left.T, right.T, strict=True)]
    return torch.stack([left.new_zeros((), dtype=torch.float64), *products])[1:]


def _finite(images: Tensor) -> Tensor:
    if not bool(torch.isfinite(images).all()):
        raise FloatingPointError("a product with the operator is not finite")
    return images


def _bordered(upper_left: Tensor, upper_right: Tensor, lower_left: Tensor, lower_right: Tensor) -> Tensor:
    return torch.cat([torch.cat([upper_left, upper_right], dim=1), torch.cat([lower_left, lower_right], dim=1)])
