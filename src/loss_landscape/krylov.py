"""Krylov spaces: what a few products with an operator tell of its spectrum."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from loss_landscape.operator import CurvatureOperator


def tridiagonal(operator: CurvatureOperator, start: Tensor, steps: int) -> Tensor:
    """The operator in the Krylov space of `start` [P], a float64 matrix [m, m]; m < `steps` where the space ends before."""
    empty = torch.empty(0, operator.size, dtype=operator.dtype, device=operator.device)
    krylov = KrylovSpace(operator, empty, torch.Generator().manual_seed(0), start)
    krylov.extend(steps, lambda _: krylov.couplings[-1] == 0)
    return krylov.matrix


@dataclass(frozen=True, eq=False)
class RitzPairs:
    """What a Krylov space knows of the spectrum, ascending."""

    values: Tensor  # [m]
    coefficients: Tensor  # [m, m], columns
    estimates: Tensor  # [m], residual by the recurrence: it goes to 0 with more steps
    residuals: Tensor  # [m], the same with the rounding of products and of the stored vectors, which does not


class KrylovSpace:
    """An orthonormal basis [m, P] grown by one product at a time, orthogonal to the `locked` vectors [L, P]."""

    def __init__(self, operator: CurvatureOperator, locked: Tensor, generator: torch.Generator, start: Tensor | None = None):
        self.operator, self.generator = operator, generator
        self.num_locked = len(locked)
        self.room = operator.size - self.num_locked
        self.basis = locked  # [L + m, P] in the first rows, then free rows
        self.length = len(locked)
        self.diagonal: list[float] = []
        self.couplings: list[float] = []
        self.lost: list[float] = []
        self.products = 0
        self.ritz: RitzPairs
        self._append(self._fresh() if start is None else self._started(start))

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left outside the basis."""
        return self.products >= self.room

    def extend(self, budget: int, enough: Callable[[RitzPairs], bool]) -> None:
        """Grow until the Ritz values are `enough`, or the budget of products or the room ends."""
        checked = self.products
        if self.products and enough(self.ritz):
            return
        while self.products < min(budget, self.room):
            self._step()
            if self.products - checked > self.products // 16 or self.products >= min(budget, self.room):
                checked, self.ritz = self.products, self._solve()
                if enough(self.ritz):
                    return

    def vectors(self, index: list[int]) -> Tensor:
        """The Ritz vectors [len(index), P]."""
        coefficients = self.ritz.coefficients[:, index].T
        basis = self.basis[self.num_locked : self.num_locked + coefficients.shape[1]]
        return coefficients.to(basis) @ basis

    def _step(self) -> None:
        last = self.basis[self.length - 1]
        image = self.operator @ last
        self.products += 1
        self.diagonal.append(float(last.double() @ image.double()))
        image, lost = self._orthogonalised(image)
        self.lost.append(lost)
        coupling = float(image.double().norm())
        if not math.isfinite(self.diagonal[-1] + coupling):
            raise FloatingPointError("a product with the operator is not finite")
        if self.is_complete:
            self.couplings.append(0.0)
            return
        scale = max(map(abs, [*self.diagonal, *self.couplings]))
        if coupling <= 10 * torch.finfo(image.dtype).eps * scale:  # an invariant subspace: go on beside it
            self.couplings.append(0.0)
            self._append(self._fresh())
            return
        self.couplings.append(coupling)
        self._append(image / coupling)

    def _orthogonalised(self, image: Tensor) -> tuple[Tensor, float]:
        """`image` without its part in the basis, and how much of that part the three-term recurrence does not know of."""
        used = self.basis[: self.length]
        first = used @ image
        image = image - first @ used
        neighbours = 2 if self.products > 1 else 1
        strangers = first[: self.length - neighbours].double()
        return _purged(image, used), float(strangers.norm())

    @property
    def matrix(self) -> Tensor:
        """The operator between the basis vectors, [m, m] float64, symmetric and tridiagonal."""
        couplings = torch.tensor(self.couplings[:-1], dtype=torch.float64)
        return torch.diag(torch.tensor(self.diagonal, dtype=torch.float64)) + torch.diag(couplings, 1) + torch.diag(couplings, -1)

    def _solve(self) -> RitzPairs:
        couplings = torch.tensor(self.couplings, dtype=torch.float64)
        values, coefficients = torch.linalg.eigh(self.matrix)
        estimates = couplings[-1] * coefficients[-1].abs()
        lost = (torch.tensor(self.lost, dtype=torch.float64)[:, None] * coefficients).norm(dim=0)
        stored = torch.full_like(values, torch.finfo(self.basis.dtype).eps * float(values.abs().max()))
        return RitzPairs(values, coefficients, estimates, torch.hypot(torch.hypot(estimates, lost), stored))

    def _fresh(self) -> Tensor:
        drawn = torch.randn(self.operator.size, generator=self.generator, dtype=torch.float64, device=self.generator.device)
        return self._cleaned(drawn.to(self.operator.device, self.operator.dtype))

    def _started(self, start: Tensor) -> Tensor:
        if start.shape[0] != self.operator.size or start.dim() > 2:
            raise ValueError(f"start must be [P] or [P, k] with P = {self.operator.size}, got {list(start.shape)}")
        start = start.to(self.operator.device, self.operator.dtype).reshape(self.operator.size, -1)
        return self._cleaned(torch.nn.functional.normalize(start, dim=0).sum(dim=1))

    def _cleaned(self, vector: Tensor) -> Tensor:
        length = vector.norm()
        vector = _purged(vector, self.basis[: self.length])
        if not bool(vector.norm() > 1e-3 * length):
            return self._fresh()
        return vector / vector.norm()

    def _append(self, vector: Tensor) -> None:
        if self.length == len(self.basis):
            rows = min(max(32, self.length), self.operator.size - self.length)
            grown = torch.empty(self.length + rows, self.operator.size, dtype=self.operator.dtype, device=self.operator.device)
            grown[: self.length] = self.basis[: self.length]
            self.basis = grown
        self.basis[self.length] = vector
        self.length += 1


def _purged(vector: Tensor, basis: Tensor) -> Tensor:
    """`vector` without its part in the span of the orthonormal rows of `basis`: twice, and again while most of it goes."""
    for _ in range(4):
        before = float(vector.norm())
        vector = vector - (basis @ vector) @ basis
        if float(vector.norm()) > 0.5 * before:
            break
    return vector
