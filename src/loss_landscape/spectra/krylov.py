"""Krylov spaces: what a few products with an operator tell of its spectrum."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loss_landscape.operators.base import CurvatureOperator
from loss_landscape.spectra.basis import Basis
from loss_landscape.spectra.probes import normal


def tridiagonal(operator: CurvatureOperator, start: Tensor, steps: int) -> Tensor:
    """The operator in the Krylov space of `start` [P], a float64 matrix [m, m]; m < `steps` where the space ends before.

    It runs to the end without waiting for the device; what is not finite stays so. Memory: `steps` vectors [P].
    """
    basis = torch.empty(steps, operator.size, dtype=operator.dtype, device=operator.device)
    vector, scale = start.to(basis) / start.to(basis).norm(), torch.zeros((), dtype=torch.float64, device=operator.device)
    diagonal, couplings = [], []
    for step in range(steps):
        basis[step] = vector
        image = operator @ vector
        diagonal.append(vector.double() @ image.double())
        used = basis[: step + 1]
        for _ in range(2):
            image = image - (used @ image) @ used
        coupling = image.double().norm()
        scale = torch.maximum(scale, torch.maximum(diagonal[-1].abs(), coupling))
        couplings.append(torch.where(coupling <= _negligible(operator, scale), 0, coupling))
        vector = image / torch.where(couplings[-1] == 0, math.inf, couplings[-1]).to(image)  # 0 beyond the end of the space
    ends = (torch.stack(couplings) == 0).nonzero()
    length = int(ends[0]) + 1 if len(ends) else steps
    return _symmetric(torch.stack(diagonal[:length]).cpu(), torch.stack(couplings[:length]).cpu())


@dataclass(frozen=True, eq=False)
class RitzPairs:
    """What a Krylov space knows of the spectrum, ascending."""

    values: Tensor  # [m]
    coefficients: Tensor  # [m, m], columns
    residual_estimates: Tensor  # [m], by the recurrence: it goes to 0 with more steps
    residuals: Tensor  # [m], the same with the rounding of products and of the stored vectors, which does not


@dataclass(frozen=True)
class BasisBudget:
    """How many vectors a basis may hold, where, and which Ritz pairs a thick restart keeps when it is full."""

    rows: int
    device: torch.device
    kept_on_restart: Callable[[Tensor, int], list[int]]  # of ascending values, a number of them


class _ChristoffelBound:
    """The largest squared share of an eigenvector at or beyond each of some `points` that a start can have.

    The points are beyond all Ritz values. It is the Christoffel function of the start's spectral measure: a larger share would
    have shown in the Ritz values.
    """

    def __init__(self, points: Sequence[float]):
        self.points = torch.tensor(points, dtype=torch.float64)
        self._shares = torch.ones(len(points), 1, dtype=torch.float64)  # of the start in the first basis vectors, at each point

    def __call__(self, ritz: RitzPairs) -> Tensor:
        """The bounds [num_points], float64."""
        share = self._among(ritz)
        seen = ritz.coefficients[-1] / (self.points[:, None] - ritz.values)  # an eigenvector there, but for its length
        return (share * seen).sum(dim=1).square() / seen.square().sum(dim=1)

    def restart(self, ritz: RitzPairs, couplings: Tensor, kept: list[int]) -> None:
        """Follow a restart with the Ritz pairs that are `kept`; all are coupled to the next vector by `couplings`."""
        dropped = [index for index in range(len(ritz.values)) if index not in kept]
        shares = self._among(ritz)
        passed_on = (shares[:, dropped] * couplings[dropped] / (self.points[:, None] - ritz.values[dropped])).sum(dim=1)
        self._shares = torch.cat([shares[:, kept], passed_on[:, None]], dim=1)

    def _among(self, ritz: RitzPairs) -> Tensor:
        """The start's shares in the Ritz vectors."""
        return self._shares @ ritz.coefficients[: self._shares.shape[1]]


class KrylovSpace:
    """An orthonormal basis grown by one product at a time, orthogonal to the `locked` vectors [L, P].

    When its budget is full it restarts from the Ritz vectors that matter and goes on (Wu and Simon 2000). At `bound_points`,
    numbers beyond all Ritz values, it tells how much of an eigenvector `start` can hide: see `christoffel_bounds`.
    """

    def __init__(
        self,
        operator: CurvatureOperator,
        locked: Tensor,
        generator: torch.Generator,
        basis_budget: BasisBudget,
        start: Tensor | None = None,
        bound_points: Sequence[float] = (),
    ):
        self.operator, self.generator, self.basis_budget = operator, generator, basis_budget
        self.num_locked = len(locked)
        self.basis = Basis(locked, basis_budget.device, basis_budget.rows)
        self.diagonal: list[float] = []
        self.couplings: list[float] = []
        self.arrow = torch.zeros(0, dtype=torch.float64)  # couplings of what a restart kept to the vector after it
        self.rounding: list[float] = []  # of each image's part in the basis, which the recurrence does not know
        self.locked_overlaps = torch.zeros(len(locked), 0, dtype=torch.float64)  # of each image: residuals of the locked vectors
        self._christoffel = _ChristoffelBound(bound_points)
        self.num_products = 0
        self.ritz_after = 0  # as many products `ritz` is true
        self.ritz: RitzPairs
        self.next_vector = self.fresh() if start is None else self._cleaned(start)  # of the basis

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left outside the basis."""
        return self.num_locked + len(self.diagonal) >= self.operator.size

    def extend(self, max_products: int, enough: Callable[[RitzPairs], bool]) -> None:
        """Grow until the Ritz values are `enough`, or `max_products` are spent or the space ends."""
        if self.num_products and self.ritz_after == self.num_products and enough(self.ritz):
            return
        while self.num_products < max_products and not self.is_complete:
            self._step()
            over = self.num_products >= max_products or self.is_complete
            if over or self.num_products - self.ritz_after > len(self.diagonal) // 64:  # a product costs more than a small eigh
                self.ritz_after, self.ritz = self.num_products, self._solve()
                if enough(self.ritz):
                    return

    def vectors(self, index: list[int]) -> Tensor:
        """The Ritz vectors [len(index), P]."""
        return self.basis.combined(self.ritz.coefficients[:, index].T)

    def locked_overlap(self, index: list[int]) -> Tensor:
        """The operator between the locked vectors and the Ritz vectors, [L, len(index)]."""
        return self.locked_overlaps @ self.ritz.coefficients[:, index]

    def fresh(self) -> Tensor:
        """A random unit vector orthogonal to the basis."""
        return self._cleaned(normal(self.operator, self.generator))

    @property
    def bound_points(self) -> Tensor:
        """[num_points], float64."""
        return self._christoffel.points

    def christoffel_bounds(self) -> Tensor:
        """For each of the `bound_points` the largest squared share that the start can have of an eigenvector there, or beyond."""
        return self._christoffel(self.ritz)

    def move(self, device: torch.device) -> None:
        """Keep the basis there from now on."""
        self.basis.move(device)
        self.next_vector = self.next_vector.to(device)

    def _step(self) -> None:
        if len(self.basis) == self.num_locked + len(self.diagonal):  # else this step was cut off before
            if len(self.basis) == self.basis_budget.rows:
                self._restart()
            self.basis.append(self.next_vector)
        vector = self.basis.last
        image = (self.operator @ vector).to(vector)
        inside = vector.double() @ image.double()
        rest, coefficients = self.basis.without(image)
        rest, _ = self.basis.without(rest)
        measured = torch.cat([coefficients.double(), torch.stack([inside, rest.double().norm()])]).cpu()
        diagonal, coupling = measured[-2:].tolist()
        if not math.isfinite(diagonal + coupling):
            raise FloatingPointError("a product with the operator is not finite")
        self.locked_overlaps = torch.cat([self.locked_overlaps, measured[: self.num_locked, None]], dim=1)
        self.rounding.append(float((measured[self.num_locked : -3] - self._expected()).norm()))
        self.diagonal.append(diagonal)
        self.num_products += 1
        if self.is_complete:
            self.couplings.append(0.0)
            return
        scale = max(map(abs, [*self.diagonal, *self.couplings, coupling]))
        ends = coupling <= _negligible(self.operator, scale)  # an invariant subspace: go on beside it
        self.couplings.append(0.0 if ends else coupling)
        self.next_vector = self.fresh() if ends else rest / coupling

    def _expected(self) -> Tensor:
        """The next image's coefficients but for the last, as the recurrence knows them: 0 for all but its neighbours."""
        if len(self.diagonal) == len(self.arrow):
            return self.arrow
        expected = torch.zeros(len(self.diagonal), dtype=torch.float64)
        expected[-1] = self.couplings[-1]
        return expected

    def _restart(self) -> None:
        """Keep only the Ritz vectors that matter, and what they are coupled to."""
        ritz = self._solve()
        last = self.couplings[-1] * ritz.coefficients[-1]
        count = max((self.basis_budget.rows - self.num_locked) // 2, 1)
        kept = sorted(self.basis_budget.kept_on_restart(ritz.values, count))
        self._christoffel.restart(ritz, last, kept)
        rounding = (torch.tensor(self.rounding, dtype=torch.float64)[:, None] * ritz.coefficients[:, kept]).norm(dim=0)
        self.locked_overlaps = self.locked_overlaps @ ritz.coefficients[:, kept]
        self.basis.rotate(ritz.coefficients[:, kept].T)
        self.diagonal, self.couplings = ritz.values[kept].tolist(), [0.0] * len(kept)
        self.arrow, self.rounding = last[kept], rounding.tolist()

    @property
    def matrix(self) -> Tensor:
        """The operator between the basis vectors, [m, m] float64: tridiagonal, with an arrow after a restart."""
        matrix = _symmetric(torch.tensor(self.diagonal, dtype=torch.float64), torch.tensor(self.couplings, dtype=torch.float64))
        kept = len(self.arrow)
        if kept < len(matrix):
            matrix[kept, :kept] = matrix[:kept, kept] = self.arrow
        return matrix

    def _solve(self) -> RitzPairs:
        values, coefficients = torch.linalg.eigh(self.matrix)
        estimates = self.couplings[-1] * coefficients[-1].abs()
        rounding = (torch.tensor(self.rounding, dtype=torch.float64)[:, None] * coefficients).norm(dim=0)
        stored = torch.full_like(values, torch.finfo(self.operator.dtype).eps * float(values.abs().max()))
        return RitzPairs(values, coefficients, estimates, torch.hypot(torch.hypot(estimates, rounding), stored))

    def _cleaned(self, vector: Tensor) -> Tensor:
        vector = vector.to(self.basis.device, self.operator.dtype)
        rest, _ = self.basis.without(vector)
        rest, _ = self.basis.without(rest)
        length = rest.norm()
        if not bool(length > 1e-3 * vector.norm()):
            return self.fresh()
        return rest / length


def _symmetric(diagonal: Tensor, couplings: Tensor) -> Tensor:
    return torch.diag(diagonal) + torch.diag(couplings[:-1], 1) + torch.diag(couplings[:-1], -1)


def _negligible(operator: CurvatureOperator, scale: float | Tensor) -> float | Tensor:
    """What is rounding beside `scale`."""
    return 10 * torch.finfo(operator.dtype).eps * scale
