"""Eigenpairs at both ends of a curvature operator's spectrum, none twice and none missed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from loss_landscape.krylov import KrylovSpace, RitzPairs
from loss_landscape.operator import CurvatureOperator


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """The largest eigenvalues, descending, then the smallest, ascending, with their unit vectors."""

    values: Tensor  # [k], float64, on the CPU
    vectors: Tensor  # [P, k]
    residuals: Tensor  # [k], ‖Hx − λx‖ over the largest |Ritz value|
    converged: Tensor  # [k], bool: the residual is within the tolerance
    num_top: int  # how many of the k are the largest
    products: int  # products with the operator that it took, verification included
    verified: bool = True  # whether a search beside the pairs found nothing more; False where `max_products` came first

    def select(self, top: int, bottom: int) -> Eigenpairs:
        """The `top` largest and `bottom` smallest of these."""
        size, count = self.vectors.shape
        if top < 0 or bottom < 0 or top + bottom == 0:
            raise ValueError(f"expected top and bottom ≥ 0 and not both 0, got top={top}, bottom={bottom}")
        top = min(top, size)
        bottom = min(bottom, size - top)
        if count == size:  # all there are, so either end can be served
            order = torch.argsort(self.values, descending=True)
            return self._pick([*order[:top].tolist(), *order[size - bottom :].flip(0).tolist()], top)
        if top > self.num_top or bottom > count - self.num_top:
            raise ValueError(
                f"asked for {top} largest and {bottom} smallest eigenpairs, but {self.num_top} and {count - self.num_top} were "
                "solved for; solve for more"
            )
        return self._pick([*range(top), *range(self.num_top, self.num_top + bottom)], top)

    def _pick(self, index: list[int], top: int) -> Eigenpairs:
        return Eigenpairs(
            self.values[index],
            self.vectors[:, index],
            self.residuals[index],
            self.converged[index],
            top,
            self.products,
            self.verified,
        )


def eigenpairs(
    operator: CurvatureOperator,
    top: int = 1,
    bottom: int = 0,
    tolerance: float = 1e-6,
    generator: torch.Generator | None = None,
    start: Tensor | None = None,
    max_products: int | None = None,
) -> Eigenpairs:
    """The `top` largest and `bottom` smallest (algebraic) eigenpairs, to a residual of `tolerance` times the largest |value|.

    Lanczos from one vector with full reorthogonalisation, both ends from the same run. A single vector can't see a repeated
    eigenvalue twice, so a second run starts beside the pairs found, and takes in what lies beyond them, until nothing does.
    `start` ([P], or [P, k] whose columns are summed) is a guess such as the last task's vectors; `generator` draws the rest
    (None: the same draws at every call). More than the operator's size is cut to it. At most `max_products` products, 100 + 30 a
    pair unless given: what has not converged by then says so. Where a product is not finite, everything is NaN. Memory: one
    vector [P] a product.
    """
    if top < 0 or bottom < 0 or top + bottom == 0:
        raise ValueError(f"expected top and bottom ≥ 0 and not both 0, got top={top}, bottom={bottom}")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be between 0 and 1, got {tolerance}")
    top = min(top, operator.size)
    bottom = min(bottom, operator.size - top)
    budget = max_products if max_products is not None else 100 + 30 * (top + bottom)
    if budget < top + bottom:
        raise ValueError(f"max_products must be at least the {top + bottom} pairs asked for, got {budget}")
    search = _Search(operator, top, bottom, tolerance, generator or torch.Generator().manual_seed(0), budget)
    try:
        search.solve(start)
        verified = search.verify()
    except FloatingPointError:
        return _unknown(operator, top, bottom)
    return search.result(verified)


def _unknown(operator: CurvatureOperator, top: int, bottom: int) -> Eigenpairs:
    """What is known where products are not finite: nothing."""
    nothing = torch.full((top + bottom,), math.nan, dtype=torch.float64)
    vectors = torch.full((operator.size, top + bottom), math.nan, dtype=operator.dtype, device=operator.device)
    return Eigenpairs(nothing, vectors, nothing, torch.zeros(top + bottom, dtype=torch.bool), top, operator.products, False)


class _Search:
    """The pairs found so far, and how many products are left to find more."""

    def __init__(
        self, operator: CurvatureOperator, top: int, bottom: int, tolerance: float, generator: torch.Generator, budget: int
    ):
        self.operator, self.top, self.bottom, self.tolerance = operator, top, bottom, tolerance
        self.generator, self.budget = generator, budget
        self.values = torch.empty(0, dtype=torch.float64)
        self.vectors = torch.empty(0, operator.size, dtype=operator.dtype, device=operator.device)  # [k, P]
        self.residuals = torch.empty(0, dtype=torch.float64)  # absolute
        self.scale = 0.0
        self.products = 0
        self.complete = False  # whether the last Krylov space left nothing out

    def solve(self, start: Tensor | None) -> None:
        """The pairs that one Krylov space shows."""
        krylov = self._krylov(start)
        wanted = self.top + self.bottom

        def enough(ritz: RitzPairs) -> bool:
            found = len(ritz.values)
            return found >= wanted and self._converged(ritz, _ends(found, self.top, self.bottom))

        krylov.extend(self.budget, enough)
        self._take(krylov, _ends(len(krylov.ritz.values), self.top, self.bottom))

    def verify(self) -> bool:
        """Look beside the pairs found and take in what lies beyond them, until nothing does; False if products run out."""
        while not self.complete:
            if self.products >= self.budget:
                return False
            krylov = self._krylov(None)
            krylov.extend(self.budget - self.products, self._is_settled)
            if not self._beyond(krylov.ritz):
                self.products += krylov.products
                return self._is_settled(krylov.ritz)
            krylov.extend(self.budget - self.products, lambda ritz: self._converged(ritz, self._beyond(ritz)))
            self._take(krylov, self._beyond(krylov.ritz))
        return True

    def result(self, verified: bool) -> Eigenpairs:
        """The wanted ones, largest first, then smallest first."""
        order = torch.argsort(self.values)[_ends(len(self.values), self.top, self.bottom)]
        residuals = self.residuals[order] / (self.scale or 1.0)
        return Eigenpairs(
            self.values[order],
            self.vectors[order.to(self.vectors.device)].T,
            residuals,
            residuals <= self.tolerance,
            self.top,
            self.products,
            verified,
        )

    def _krylov(self, start: Tensor | None) -> KrylovSpace:
        return KrylovSpace(self.operator, self.vectors, self.generator, start)

    def _take(self, krylov: KrylovSpace, index: list[int]) -> None:
        ritz = krylov.ritz
        self.values = torch.cat([self.values, ritz.values[index]])
        self.vectors = torch.cat([self.vectors, krylov.vectors(index)])
        self.residuals = torch.cat([self.residuals, ritz.residuals[index]])
        self.scale = max(self.scale, float(ritz.values.abs().max()))
        self.products += krylov.products
        self.complete = krylov.is_complete

    def _limit(self, ritz: RitzPairs) -> float:
        return self.tolerance * max(self.scale, float(ritz.values.abs().max()))

    def _converged(self, ritz: RitzPairs, index: list[int]) -> bool:
        return bool((ritz.estimates[index] <= self._limit(ritz)).all())

    def _beyond(self, ritz: RitzPairs) -> list[int]:
        """Ritz values that belong among the wanted ones but are not."""
        highest, lowest = self._borders()
        margin = self._limit(ritz)
        return torch.nonzero((ritz.values > highest + margin) | (ritz.values < lowest - margin))[:, 0].tolist()

    def _borders(self) -> tuple[float, float]:
        ordered = self.values.sort().values
        highest = float(ordered[-self.top]) if self.top else float("inf")
        lowest = float(ordered[self.bottom - 1]) if self.bottom else float("-inf")
        return highest, lowest

    def _is_settled(self, ritz: RitzPairs) -> bool:
        """Whether both ends are known well enough to tell that nothing lies beyond the borders, or that something does."""
        highest, lowest = self._borders()
        return self._end_is_settled(ritz, -1, highest) and self._end_is_settled(_negated(ritz), -1, -lowest)

    def _end_is_settled(self, ritz: RitzPairs, end: int, border: float) -> bool:
        if border == float("inf"):
            return True
        limit = self._limit(ritz)
        value, estimate = float(ritz.values[end]), float(ritz.estimates[end])
        if value > border + limit or estimate <= limit:
            return True
        gap = value - float(ritz.values[end - 1]) if len(ritz.values) > 1 else 0.0
        error = estimate if gap <= estimate else estimate**2 / gap  # Kato–Temple: as good as the residual squared
        return value + error <= border + limit and estimate <= limit / self.tolerance**0.5


def _negated(ritz: RitzPairs) -> RitzPairs:
    return RitzPairs(-ritz.values.flip(0), ritz.coefficients.flip(1), ritz.estimates.flip(0), ritz.residuals.flip(0))


def _ends(count: int, top: int, bottom: int) -> list[int]:
    """Indices into `count` ascending values: the largest, descending, then the smallest, ascending."""
    top = min(top, count)
    return [*range(count - 1, count - 1 - top, -1), *range(min(bottom, count - top))]
