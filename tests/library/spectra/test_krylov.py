from __future__ import annotations

import pytest
import torch
from torch import Tensor

from loss_landscape import MatrixOperator
from loss_landscape.spectra.basis import Basis
from loss_landscape.spectra.krylov import BasisBudget, KrylovSpace, RitzPairs, tridiagonal


def symmetric(size: int, seed: int) -> Tensor:
    matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (matrix + matrix.T) / 2


def both_ends(values: Tensor, count: int) -> list[int]:
    return [*range(count // 2), *range(len(values) - count + count // 2, len(values))]


def space(matrix: Tensor, rows: int, start: Tensor | None = None, bound_points: tuple[float, ...] = ()) -> KrylovSpace:
    locked = torch.empty(0, len(matrix), dtype=matrix.dtype)
    basis_budget = BasisBudget(rows, matrix.device, both_ends)
    return KrylovSpace(MatrixOperator(matrix), locked, torch.Generator().manual_seed(0), basis_budget, start, bound_points)


def never(ritz: RitzPairs) -> bool:
    return False


@pytest.mark.parametrize("rows", [80, 12])
def test_the_projected_matrix_is_that_of_the_basis(rows):
    """Also after restarts, where it is no longer tridiagonal."""
    matrix = symmetric(80, 0)
    krylov = space(matrix, rows)
    for budget in range(5, 40, 5):
        krylov.extend(budget, never)
        basis = torch.cat(list(krylov.basis))[: len(krylov.diagonal)]
        torch.testing.assert_close(basis @ matrix @ basis.T, krylov.matrix, rtol=0, atol=1e-12)
        vectors = krylov.vectors([0, len(basis) - 1])
        true = (vectors @ matrix - krylov.ritz.values[[0, -1], None] * vectors).norm(dim=1)
        torch.testing.assert_close(true, krylov.ritz.residual_estimates[[0, -1]], rtol=1e-8, atol=1e-12)
        assert len(krylov.basis) <= rows


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rows", [60, 10])
def test_a_start_hides_no_more_of_an_eigenvector_than_it_is_told(seed, rows):
    """The share of each end's eigenvector in the start is known here; the bound falls towards it and never below."""
    matrix = symmetric(60, seed)
    values, vectors = torch.linalg.eigh(matrix)
    start = torch.randn(60, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    start = start / start.norm()
    share = torch.stack([start @ vectors[:, -1], start @ vectors[:, 0]]).square()
    krylov = space(matrix, rows, start, (float(values[-1]), float(values[0])))
    bounds = []
    while not bounds or krylov.ritz.residual_estimates[[-1, 0]].min() > 1e-5:
        krylov.extend(krylov.num_products + 1, never)
        bounds.append(krylov.christoffel_bounds())
    assert (torch.stack(bounds) >= share * (1 - 1e-6)).all()
    torch.testing.assert_close(bounds[-1], share, rtol=0.05, atol=0)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 40])
def test_a_basis_is_the_matrix_of_its_rows(length):
    draw = torch.Generator().manual_seed(0)
    locked = torch.randn(3, 50, generator=draw, dtype=torch.float64)
    rows = torch.randn(length, 50, generator=draw, dtype=torch.float64)
    basis = Basis(locked, torch.device("cpu"), 3 + length)
    for row in rows:
        basis.append(row)
    whole = torch.cat([locked, rows])
    vector = torch.randn(50, generator=draw, dtype=torch.float64)
    rest, coefficients = basis.without(vector)
    torch.testing.assert_close(coefficients, whole @ vector)
    torch.testing.assert_close(rest, vector - whole.T @ (whole @ vector))
    turned = torch.randn(max(length // 2, 1), length, generator=draw, dtype=torch.float64)
    torch.testing.assert_close(basis.combined(turned), turned @ rows)
    basis.rotate(turned)
    torch.testing.assert_close(torch.cat(list(basis)), torch.cat([locked, turned @ rows]))
    assert torch.equal(basis.last, torch.cat(list(basis))[-1])


def test_a_tridiagonal_matrix_ends_with_its_space():
    matrix = torch.diag(torch.tensor([2.0, 2, 2, 5, 5], dtype=torch.float64))
    found = tridiagonal(MatrixOperator(matrix), torch.ones(5, dtype=torch.float64), 4)
    assert found.shape == (2, 2)
    assert torch.linalg.eigvalsh(found).tolist() == pytest.approx([2, 5])
