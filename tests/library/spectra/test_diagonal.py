from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from loss_landscape import MatrixOperator
from loss_landscape.spectra.diagonal import diagonal


def random_symmetric(size: int, seed: int = 0) -> Tensor:
    matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (matrix + matrix.T) / 2


def test_its_variance_is_the_formulas():
    """Σⱼ≠ᵢ H²ᵢⱼ a sample, entry by entry, as told and as found."""
    matrix = random_symmetric(30)
    draw = torch.Generator().manual_seed(0)
    found = [diagonal(MatrixOperator(matrix), 20, generator=draw) for _ in range(500)]
    values = torch.stack([estimate.values for estimate in found])
    expected = (matrix.square().sum(dim=1) - matrix.diagonal().square()) / 20
    told = torch.stack([estimate.standard_errors for estimate in found]).square().mean(dim=0)
    torch.testing.assert_close(values.var(dim=0), expected, rtol=0.3, atol=0)
    torch.testing.assert_close(told, expected, rtol=0.1, atol=0)
    assert ((values.mean(dim=0) - matrix.diagonal()).abs() < 5 * (expected / 500).sqrt()).all()
    assert found[0].num_samples == 20


def test_curvlinops_case_the_mean_of_estimates_goes_to_the_diagonal():
    torch.manual_seed(0)
    matrix = torch.rand(10, 10, dtype=torch.float64)
    matrix = (matrix + matrix.T) / 2
    operator, draw = MatrixOperator(matrix), torch.Generator().manual_seed(0)
    total, count = torch.zeros(10, dtype=torch.float64), 0
    while count < 100 or ((total / count - matrix.diagonal()).norm() > 2e-2 * matrix.diagonal().norm()):
        total, count = total + diagonal(operator, 9, generator=draw).values, count + 1
        assert operator.num_products < 1e5


@pytest.mark.parametrize("size", [1, 8, 21])
def test_enough_products_give_the_exact_diagonal(size):
    matrix = random_symmetric(size)
    operator = MatrixOperator(matrix)
    estimate = diagonal(operator, 40)
    torch.testing.assert_close(estimate.values, matrix.diagonal(), rtol=1e-12, atol=0)
    assert (estimate.standard_errors == 0).all()
    assert estimate.num_samples == operator.num_products == size


def test_a_diagonal_matrix_takes_no_error():
    values = torch.linspace(-3, 4, 50, dtype=torch.float64)
    estimate = diagonal(MatrixOperator(torch.diag(values)), 5)
    torch.testing.assert_close(estimate.values, values)
    assert estimate.standard_errors.max() < 1e-7


def test_the_callers_random_state_is_left_alone_and_nan_stays():
    before = torch.get_rng_state()
    first, again = (diagonal(MatrixOperator(random_symmetric(50)), 10) for _ in range(2))
    assert torch.equal(first.values, again.values)
    assert torch.equal(torch.get_rng_state(), before)
    lost = diagonal(MatrixOperator(torch.full((50, 50), math.nan)), 10)
    assert lost.values.isnan().all()
    assert lost.standard_errors.isnan().all()


def test_one_product_is_too_few_for_an_error():
    with pytest.raises(ValueError, match="diagonal needs num_products ≥ 2"):
        diagonal(MatrixOperator(random_symmetric(50)), 1)
