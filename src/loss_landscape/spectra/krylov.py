"""Krylov spaces: what a few products with an operator tell of its spectrum."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loss_landscape.operators.base import CurvatureOperator

BLOCK = 16  # rows of a basis that are allocated together
COLUMNS = 2**16  # of a basis that are rotated together


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


class Basis:
    """At most `most` orthonormal vectors, the rows of blocks [≤ 16, P]: growing copies nothing. Any device will do."""

    def __init__(self, rows: Tensor, device: torch.device, most: int):
        self.blocks, self.lengths, self.most = [rows.to(device)], [len(rows)], most

    def __len__(self) -> int:
        return sum(self.lengths)

    def __iter__(self) -> Iterator[Tensor]:
        """The rows in use, block by block."""
        return (block[:length] for block, length in zip(self.blocks, self.lengths, strict=True))

    @property
    def device(self) -> torch.device:
        return self.blocks[0].device

    @property
    def last(self) -> Tensor:
        """The newest row."""
        return self.blocks[-1][self.lengths[-1] - 1]

    def append(self, vector: Tensor) -> None:
        if len(self.blocks) == 1 or self.lengths[-1] == len(self.blocks[-1]):
            self.blocks.append(self.blocks[0].new_empty(min(BLOCK, self.most - len(self)), self.blocks[0].shape[1]))
            self.lengths.append(0)
        self.blocks[-1][self.lengths[-1]] = vector
        self.lengths[-1] += 1

    def without(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """`vector` without its part in the span of the rows, and its coefficients [m] there. Twice is enough (Parlett)."""
        coefficients = [block @ vector for block in self]
        for part, block in zip(coefficients, self, strict=True):
            vector = vector - part @ block
        return vector, torch.cat(coefficients)

    def combined(self, coefficients: Tensor) -> Tensor:
        """`coefficients` [k, m] of the rows after the first block, the vectors [k, P]."""
        parts = coefficients.to(self.blocks[0]).split(self.lengths[1:], dim=1)
        return sum((part @ block for part, block in zip(parts, list(self)[1:], strict=True)))

    def rotate(self, coefficients: Tensor) -> None:
        """Put the combinations [k, m] in the place of the rows after the first block, using next to no memory."""
        kept, size = len(coefficients), self.blocks[0].shape[1]
        coefficients = coefficients.to(self.blocks[0])
        old = list(self)[1:]
        full, rest = divmod(kept, len(self.blocks[1]))
        self.lengths = [self.lengths[0], *[len(self.blocks[1])] * full, *([rest] if rest else [])]
        self.blocks = self.blocks[: len(self.lengths)]
        for first in range(0, size, COLUMNS):
            columns = slice(first, first + COLUMNS)
            rotated = coefficients @ torch.cat([block[:, columns] for block in old])
            for block, part in zip(list(self)[1:], rotated.split(self.lengths[1:]), strict=True):
                block[:, columns] = part

    def move(self, device: torch.device) -> None:
        self.blocks = [block.to(device) for block in self.blocks]


@dataclass(frozen=True, eq=False)
class RitzPairs:
    """What a Krylov space knows of the spectrum, ascending."""

    values: Tensor  # [m]
    coefficients: Tensor  # [m, m], columns
    estimates: Tensor  # [m], residual by the recurrence: it goes to 0 with more steps
    residuals: Tensor  # [m], the same with the rounding of products and of the stored vectors, which does not


@dataclass(frozen=True)
class Room:
    """How many vectors a basis may hold, where, and which Ritz values outlive a thick restart when it is full."""

    rows: int
    device: torch.device
    survivors: Callable[[Tensor, int], list[int]]  # of ascending values, a number of them


class KrylovSpace:
    """An orthonormal basis grown by one product at a time, orthogonal to the `locked` vectors [L, P].

    When its room is full it restarts from the Ritz vectors that matter and goes on (Wu and Simon 2000). At `places`, numbers
    beyond all Ritz values, it tells how much of an eigenvector `start` can hide: see `hidden_shares`.
    """

    def __init__(
        self,
        operator: CurvatureOperator,
        locked: Tensor,
        generator: torch.Generator,
        room: Room,
        start: Tensor | None = None,
        places: Sequence[float] = (),
    ):
        self.operator, self.generator, self.room = operator, generator, room
        self.num_locked = len(locked)
        self.basis = Basis(locked, room.device, room.rows)
        self.diagonal: list[float] = []
        self.couplings: list[float] = []
        self.spikes = torch.zeros(0, dtype=torch.float64)  # couplings of a restart's survivors to the vector after them
        self.lost: list[float] = []  # of each image's part in the basis, what the recurrence does not know: rounding
        self.leaks = torch.zeros(len(locked), 0, dtype=torch.float64)  # of each image, into the locked vectors: their residuals
        self.places = torch.tensor(places, dtype=torch.float64)
        self.shares = torch.ones(len(places), 1, dtype=torch.float64)  # of the start in the first basis vectors, at each place
        self.products = 0
        self.solved = 0  # after how many products `ritz` was true
        self.ritz: RitzPairs
        self.following = self.fresh() if start is None else self._cleaned(start)  # the next vector of the basis

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left outside the basis."""
        return self.num_locked + len(self.diagonal) >= self.operator.size

    def extend(self, budget: int, enough: Callable[[RitzPairs], bool]) -> None:
        """Grow until the Ritz values are `enough`, or the budget of products or the space ends."""
        if self.products and self.solved == self.products and enough(self.ritz):
            return
        while self.products < budget and not self.is_complete:
            self._step()
            over = self.products >= budget or self.is_complete
            if over or self.products - self.solved > len(self.diagonal) // 64:  # a product costs more than a small eigh
                self.solved, self.ritz = self.products, self._solve()
                if enough(self.ritz):
                    return

    def vectors(self, index: list[int]) -> Tensor:
        """The Ritz vectors [len(index), P]."""
        return self.basis.combined(self.ritz.coefficients[:, index].T)

    def leaked(self, index: list[int]) -> Tensor:
        """The operator between the locked vectors and the Ritz vectors, [L, len(index)]."""
        return self.leaks @ self.ritz.coefficients[:, index]

    def fresh(self) -> Tensor:
        """A random unit vector orthogonal to the basis."""
        drawn = torch.randn(self.operator.size, generator=self.generator, dtype=torch.float64, device=self.generator.device)
        return self._cleaned(drawn)

    def hidden_shares(self) -> Tensor:
        """For each place the largest squared share of an eigenvector there, or beyond, that the start can have.

        The Christoffel function of the start's spectral measure: a larger share would have shown in the Ritz values.
        """
        ritz = self.ritz
        share = self.shares @ ritz.coefficients[: self.shares.shape[1]]
        seen = ritz.coefficients[-1] / (self.places[:, None] - ritz.values)  # an eigenvector there, but for its length
        return (share * seen).sum(dim=1).square() / seen.square().sum(dim=1)

    def move(self, device: torch.device) -> None:
        """Keep the basis there from now on."""
        self.basis.move(device)
        self.following = self.following.to(device)

    def _step(self) -> None:
        if len(self.basis) == self.num_locked + len(self.diagonal):  # else this step was cut off before
            if len(self.basis) == self.room.rows:
                self._restart()
            self.basis.append(self.following)
        vector = self.basis.last
        image = (self.operator @ vector).to(vector)
        inside = vector.double() @ image.double()
        rest, coefficients = self.basis.without(image)
        rest, _ = self.basis.without(rest)
        measured = torch.cat([coefficients.double(), torch.stack([inside, rest.double().norm()])]).cpu()
        diagonal, coupling = measured[-2:].tolist()
        if not math.isfinite(diagonal + coupling):
            raise FloatingPointError("a product with the operator is not finite")
        self.leaks = torch.cat([self.leaks, measured[: self.num_locked, None]], dim=1)
        self.lost.append(float((measured[self.num_locked : -3] - self._expected()).norm()))
        self.diagonal.append(diagonal)
        self.products += 1
        if self.is_complete:
            self.couplings.append(0.0)
            return
        scale = max(map(abs, [*self.diagonal, *self.couplings, coupling]))
        ends = coupling <= _negligible(self.operator, scale)  # an invariant subspace: go on beside it
        self.couplings.append(0.0 if ends else coupling)
        self.following = self.fresh() if ends else rest / coupling

    def _expected(self) -> Tensor:
        """The next image's coefficients but for the last, as the recurrence knows them: 0 for all but its neighbours."""
        if len(self.diagonal) == len(self.spikes):
            return self.spikes
        expected = torch.zeros(len(self.diagonal), dtype=torch.float64)
        expected[-1] = self.couplings[-1]
        return expected

    def _restart(self) -> None:
        """Keep only the Ritz vectors that matter, and what they are coupled to."""
        ritz = self._solve()
        last = self.couplings[-1] * ritz.coefficients[-1]
        count = max((self.room.rows - self.num_locked) // 2, 1)
        kept = sorted(self.room.survivors(ritz.values, count))
        dropped = [index for index in range(len(ritz.values)) if index not in kept]
        shares = self.shares @ ritz.coefficients[: self.shares.shape[1]]
        passed_on = (shares[:, dropped] * last[dropped] / (self.places[:, None] - ritz.values[dropped])).sum(dim=1)
        self.shares = torch.cat([shares[:, kept], passed_on[:, None]], dim=1)
        lost = (torch.tensor(self.lost, dtype=torch.float64)[:, None] * ritz.coefficients[:, kept]).norm(dim=0)
        self.leaks = self.leaks @ ritz.coefficients[:, kept]
        self.basis.rotate(ritz.coefficients[:, kept].T)
        self.diagonal, self.couplings = ritz.values[kept].tolist(), [0.0] * len(kept)
        self.spikes, self.lost = last[kept], lost.tolist()

    @property
    def matrix(self) -> Tensor:
        """The operator between the basis vectors, [m, m] float64: tridiagonal, with an arrow after a restart."""
        matrix = _symmetric(torch.tensor(self.diagonal, dtype=torch.float64), torch.tensor(self.couplings, dtype=torch.float64))
        kept = len(self.spikes)
        if kept < len(matrix):
            matrix[kept, :kept] = matrix[:kept, kept] = self.spikes
        return matrix

    def _solve(self) -> RitzPairs:
        values, coefficients = torch.linalg.eigh(self.matrix)
        estimates = self.couplings[-1] * coefficients[-1].abs()
        lost = (torch.tensor(self.lost, dtype=torch.float64)[:, None] * coefficients).norm(dim=0)
        stored = torch.full_like(values, torch.finfo(self.operator.dtype).eps * float(values.abs().max()))
        return RitzPairs(values, coefficients, estimates, torch.hypot(torch.hypot(estimates, lost), stored))

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
