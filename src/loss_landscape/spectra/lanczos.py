"""Eigenpairs at both ends of a curvature operator's spectrum, none twice and none missed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from loss_landscape.nested import as_tensor
from loss_landscape.operators.base import CurvatureOperator, as_operator
from loss_landscape.randomness import GeneratorLike, generator_from
from loss_landscape.results.eigenpairs import Eigenpairs
from loss_landscape.spectra.krylov import BasisBudget, KrylovSpace, RitzPairs

MISS_PROBABILITY = 0.1  # of overlooking an eigenvalue that is just beyond the tolerance; for one further out it is far less


def eigenpairs(
    operator: CurvatureOperator | Tensor,
    top: int = 1,
    bottom: int = 0,
    *,
    tolerance: float = 1e-6,
    generator: GeneratorLike = None,
    start: Tensor | np.ndarray | None = None,
    max_products: int | None = None,
    memory_budget_mb: float | None = None,
    basis_device: torch.device | str | None = None,
) -> Eigenpairs:
    """The `top` largest and `bottom` smallest (algebraic) eigenpairs of `operator`, by Lanczos, none twice and none missed.

    `tolerance` is that of the residuals, over the largest |value|. Lanczos goes from one vector with full reorthogonalisation,
    both ends from the same run. A single vector can't see a repeated eigenvalue twice, and may be nearly blind to another, so a
    second run starts at random beside all that the first one saw and takes in what lies beyond the pairs found, until nothing
    does: `verified`. It stops as soon as the odds are less than one in ten that its start hides an eigenvector with an eigenvalue
    beyond by the tolerance, far less for one further out (van Dorsselaer et al. 2000, with the Christoffel function of the
    start's spectral measure).

    `start` ([P], or [P, k] whose columns are summed) is a guess such as the last task's vectors; `generator` draws the rest
    (None: the same draws at every call). More than the operator's size is cut to it. At most `max_products` products, 100 + 30 a
    pair unless given: what has not converged by then says so. Where a product is not finite, everything is NaN.

    Memory: one vector [P] a product, the basis. Where it would exceed `memory_budget_mb`, in MiB (None: no bound), Lanczos
    restarts from the best half of it (Wu and Simon 2000), which takes more products; the budget must hold 2·(top + bottom) + 6
    vectors. The basis lies on `basis_device` (None: the operator's); out of memory it moves to the CPU, and `note` says so.

    Raises ValueError for counts, a tolerance, a start or a budget that can't be, TypeError for what is no operator, and
    torch.OutOfMemoryError where the CPU does not help.

    >>> eigenpairs(torch.diag(torch.tensor([3.0, 1.0, -2.0])), top=1, bottom=1).values.round(decimals=3)
    tensor([ 3., -2.], dtype=torch.float64)
    """
    operator = as_operator(operator)
    if top < 0 or bottom < 0 or top + bottom == 0:
        raise ValueError(f"expected top and bottom ≥ 0 and not both 0, got top={top}, bottom={bottom}")
    top = min(top, operator.size)
    ends = _Ends(top, min(bottom, operator.size - top))
    return _solved(operator, ends, tolerance, generator, start, max_products, memory_budget_mb, basis_device)


def largest_magnitude_eigenpairs(
    operator: CurvatureOperator | Tensor,
    count: int = 1,
    *,
    tolerance: float = 1e-6,
    generator: GeneratorLike = None,
    start: Tensor | np.ndarray | None = None,
    max_products: int | None = None,
    memory_budget_mb: float | None = None,
    basis_device: torch.device | str | None = None,
) -> Eigenpairs:
    """The `count` eigenpairs of `operator` of largest |value|: those ≥ 0, descending, then those < 0, ascending.

    They come from one run at both ends; `num_top` is how many are ≥ 0. `tolerance`, `generator`, `start`, `max_products`,
    `memory_budget_mb` and `basis_device`, and what is raised, are as in `eigenpairs`.

    >>> largest_magnitude_eigenpairs(torch.diag(torch.tensor([3.0, 1.0, -2.0])), 2).values.round(decimals=3)
    tensor([ 3., -2.], dtype=torch.float64)
    """
    operator = as_operator(operator)
    if count < 1:
        raise ValueError(f"count must be ≥ 1, got {count}")
    selection = _Magnitude(min(count, operator.size))
    return _solved(operator, selection, tolerance, generator, start, max_products, memory_budget_mb, basis_device)


class _Selection(Protocol):
    """Which eigenvalues are looked for. Values are given in ascending order."""

    @property
    def count(self) -> int:
        """How many."""

    def pick(self, values: Tensor) -> list[int]:
        """Where the wanted ones are: the upper, descending, then the lower, ascending."""

    def num_top(self, values: Tensor) -> int:
        """How many of those are upper ones."""

    def borders(self, values: Tensor) -> tuple[float, float]:
        """Above the first and below the second lies nothing but the wanted, if `values` are those and no other."""

    def widened(self, count: int) -> _Selection:
        """The same, but `count` or more of them."""


@dataclass(frozen=True)
class _Ends:
    top: int
    bottom: int

    @property
    def count(self) -> int:
        return self.top + self.bottom

    def pick(self, values: Tensor) -> list[int]:
        count = len(values)
        top = self.num_top(values)
        return [*range(count - 1, count - 1 - top, -1), *range(min(self.bottom, count - top))]

    def num_top(self, values: Tensor) -> int:
        return min(self.top, len(values))

    def borders(self, values: Tensor) -> tuple[float, float]:
        highest = float(values[-self.top]) if self.top else math.inf
        lowest = float(values[self.bottom - 1]) if self.bottom else -math.inf
        return highest, lowest

    def widened(self, count: int) -> _Ends:
        more = max(count - self.count, 0)
        above = more * self.top // self.count
        return _Ends(self.top + above, self.bottom + more - above)


@dataclass(frozen=True)
class _Magnitude:
    count: int

    def pick(self, values: Tensor) -> list[int]:
        largest = values.abs().argsort(descending=True)[: self.count].sort(descending=True).values.tolist()
        top = self.num_top(values)
        return [*largest[:top], *largest[top:][::-1]]

    def num_top(self, values: Tensor) -> int:
        return int((values[values.abs().argsort(descending=True)[: self.count]] >= 0).sum())

    def borders(self, values: Tensor) -> tuple[float, float]:
        border = float(values.abs().min())
        return border, -border

    def widened(self, count: int) -> _Magnitude:
        return _Magnitude(max(count, self.count))


def _solved(
    operator: CurvatureOperator,
    selection: _Selection,
    tolerance: float,
    generator: GeneratorLike,
    start: Tensor | np.ndarray | None,
    max_products: int | None,
    memory_budget_mb: float | None,
    basis_device: torch.device | str | None,
) -> Eigenpairs:
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be between 0 and 1, got {tolerance}")
    budget = max_products if max_products is not None else 100 + 30 * selection.count
    if budget < selection.count:
        raise ValueError(f"max_products must be at least the {selection.count} pairs asked for, got {budget}")
    basis_budget = BasisBudget(
        _rows(operator, selection.count, memory_budget_mb),
        operator.device if basis_device is None else torch.device(basis_device),
        lambda values, count: selection.widened(count).pick(values),
    )
    search = _Search(operator, selection, tolerance, generator_from(generator), budget, basis_budget)
    try:
        search.solve(None if start is None else _summed(operator, start))
        verified = search.verify()
    except FloatingPointError:
        return _unknown(operator, selection, search.note)
    return search.result(verified)


def _rows(operator: CurvatureOperator, count: int, memory_budget_mb: float | None) -> int:
    """How many basis vectors fit."""
    if memory_budget_mb is None:
        return operator.size
    row = operator.size * torch.finfo(operator.dtype).bits // 8
    rows, least = int(memory_budget_mb * 2**20 // row), min(2 * count + 6, operator.size)
    if rows < least:
        raise ValueError(
            f"{count} eigenpairs of {operator.size} parameters take a basis of at least {least} vectors, but memory_budget_mb="
            f"{memory_budget_mb} holds {rows}; give {math.ceil(least * row / 2**20)} or more, with basis_device='cpu' if need be"
        )
    return min(rows, operator.size)


def _summed(operator: CurvatureOperator, start: Tensor | np.ndarray) -> Tensor:
    """One vector [P] with as much of each column."""
    start = as_tensor(start)
    if not isinstance(start, Tensor):
        hint = "; give its .vectors" if isinstance(start, Eigenpairs) else ""
        raise TypeError(f"start must be a tensor [P] or [P, k], got {type(start).__name__}{hint}")
    if start.shape[0] != operator.size or start.dim() > 2:
        raise ValueError(f"start must be [P] or [P, k] with P = {operator.size}, got {list(start.shape)}")
    start = start.to(operator.device, operator.dtype).reshape(operator.size, -1)
    return torch.nn.functional.normalize(start, dim=0).sum(dim=1)


def _unknown(operator: CurvatureOperator, selection: _Selection, note: str) -> Eigenpairs:
    """NaN for every pair, as products are not finite."""
    nothing = torch.full((selection.count,), math.nan, dtype=torch.float64)
    vectors = torch.full((operator.size, selection.count), math.nan, dtype=operator.dtype, device=operator.device)
    converged, top = torch.zeros(selection.count, dtype=torch.bool), selection.num_top(torch.zeros(selection.count))
    return Eigenpairs(nothing, vectors, nothing, converged, top, operator.num_products, False, note)


class _Search:
    """The pairs found so far, in ascending order, and how many products are left to find more."""

    def __init__(
        self,
        operator: CurvatureOperator,
        selection: _Selection,
        tolerance: float,
        generator: torch.Generator,
        budget: int,
        basis_budget: BasisBudget,
    ):
        self.operator, self.selection, self.tolerance, self.generator = operator, selection, tolerance, generator
        self.budget, self.basis_budget, self.note = budget, basis_budget, ""
        self.values = torch.empty(0, dtype=torch.float64)
        self.vectors = torch.empty(0, operator.size, dtype=operator.dtype, device=basis_budget.device)  # [k, P]
        self.residuals = torch.empty(0, dtype=torch.float64)  # absolute
        self.scale = 0.0
        self.num_products = 0
        self.verification_start: Tensor  # [P], and what it can't see, at points: see _take
        self.start_overlap_penalty: Callable[[Tensor], Tensor]
        self.complete = False  # whether the last Krylov space left nothing out

    def solve(self, start: Tensor | None) -> None:
        """The pairs that one Krylov space shows."""
        krylov = KrylovSpace(self.operator, self.vectors, self.generator, self.basis_budget, start)

        def enough(ritz: RitzPairs) -> bool:
            return len(ritz.values) >= self.selection.count and self._converged(ritz, self.selection.pick(ritz.values))

        self._grow(krylov, enough)
        self._take(krylov, self.selection.pick(krylov.ritz.values))

    def verify(self) -> bool:
        """Look beside the pairs found and take in what lies beyond them, until nothing does; False if products run out."""
        while not self.complete:
            if self.num_products >= self.budget:
                return False
            start, penalty = self.verification_start, self.start_overlap_penalty
            points = [border for border in self._borders() if math.isfinite(border)]
            krylov = KrylovSpace(self.operator, self.vectors, self.generator, self.basis_budget, start, points)
            odds = 2 / math.pi * self.operator.size * penalty(krylov.bound_points)

            def excluded(ritz: RitzPairs, krylov: KrylovSpace = krylov, odds: Tensor = odds) -> bool:
                return bool(self._beyond(ritz)) or bool((odds * krylov.christoffel_bounds() <= MISS_PROBABILITY**2).all())

            self._grow(krylov, excluded)
            if not self._beyond(krylov.ritz):
                self.num_products += krylov.num_products
                return krylov.is_complete or excluded(krylov.ritz)
            self._grow(krylov, lambda ritz: self._converged(ritz, self._beyond(ritz)))
            self._take(krylov, self._beyond(krylov.ritz))
        return True

    def result(self, verified: bool) -> Eigenpairs:
        """The wanted ones, the upper first."""
        order = self.selection.pick(self.values)
        residuals = self.residuals[order] / (self.scale or 1.0)
        return Eigenpairs(
            self.values[order],
            self.vectors[order].to(self.operator.device).T,
            residuals,
            residuals <= self.tolerance,
            self.selection.num_top(self.values),
            self.num_products,
            verified,
            self.note,
        )

    def _grow(self, krylov: KrylovSpace, enough: Callable[[RitzPairs], bool]) -> None:
        """Extend, and once, out of memory, with the basis on the CPU."""
        try:
            krylov.extend(self.budget - self.num_products, enough)
            return
        except torch.OutOfMemoryError as error:
            if self.basis_budget.device.type == "cpu":
                raise torch.OutOfMemoryError(
                    f"product {self._next_product(krylov)} with the operator does not fit into memory, and the basis of the "
                    "eigenpairs is on the CPU already; make the batches smaller"
                ) from error
        self.basis_budget = replace(self.basis_budget, device=torch.device("cpu"))
        self.note = f"out of memory at product {self._next_product(krylov)}: the basis was moved to the CPU"
        krylov.move(self.basis_budget.device)
        self.vectors = self.vectors.cpu()
        self._grow(krylov, enough)

    def _next_product(self, krylov: KrylovSpace) -> int:
        return self.num_products + krylov.num_products + 1

    def _take(self, krylov: KrylovSpace, index: list[int]) -> None:
        """Put its pairs at `index` beside those there are and keep the wanted, with a start for a look at what else there may be.

        The start is random, orthogonal to all that `krylov` saw. An eigenvector with its eigenvalue at μ, beyond the Ritz values
        that are left, has a part ρ²/(1 + ρ²) in the space already, ρ² = Σ r²/(μ − θ)² over those, which that start can't see.
        """
        ritz = krylov.ritz
        overlap = krylov.locked_overlap(index)
        within = torch.diag(torch.cat([self.values, ritz.values[index]]))
        within[: len(overlap), len(overlap) :], within[len(overlap) :, : len(overlap)] = overlap, overlap.T
        values, turn = torch.linalg.eigh(within)  # what is not quite converged has a part in what was found beside it
        kept = sorted(self.selection.pick(values))
        self.values, turn = values[kept], turn[:, kept]
        self.vectors = turn.T.to(self.vectors) @ torch.cat([self.vectors, krylov.vectors(index)])
        self.residuals = (turn * torch.cat([self.residuals, ritz.residuals[index]])[:, None]).norm(dim=0)
        self.scale = max(self.scale, float(ritz.values.abs().max()))
        self.num_products += krylov.num_products
        self.complete = krylov.is_complete
        if not self.complete:
            left = [place for place in range(len(ritz.values)) if place not in index]
            values, estimates = ritz.values[left], ritz.residual_estimates[left]
            self.verification_start = krylov.fresh()
            self.start_overlap_penalty = lambda points: 1 + (estimates / (points[:, None] - values)).square().sum(dim=1)

    def _limit(self) -> float:
        return self.tolerance * self.scale

    def _converged(self, ritz: RitzPairs, index: list[int]) -> bool:
        limit = self.tolerance * max(self.scale, float(ritz.values.abs().max()))
        return bool((ritz.residual_estimates[index] <= limit).all())

    def _borders(self) -> tuple[float, float]:
        """What an eigenvalue that was overlooked lies above or below."""
        highest, lowest = self.selection.borders(self.values)
        return highest + self._limit(), lowest - self._limit()

    def _beyond(self, ritz: RitzPairs) -> list[int]:
        """Ritz values that belong among the wanted ones but are not."""
        highest, lowest = self._borders()
        return torch.nonzero((ritz.values > highest) | (ritz.values < lowest))[:, 0].tolist()
