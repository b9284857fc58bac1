from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from loss_landscape import MatrixOperator, trace

METHODS = ["hutchinson", "hutch++", "xtrace"]


def random_symmetric(size: int, seed: int = 0) -> Tensor:
    matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (matrix + matrix.T) / 2


def decaying(size: int, seed: int = 0) -> Tensor:
    basis = torch.linalg.qr(random_symmetric(size, seed))[0]
    return (basis * torch.arange(1.0, size + 1).double() ** -2) @ basis.T


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("matrix", [random_symmetric(60), decaying(60)], ids=["flat", "decaying"])
def test_estimates_are_unbiased_and_their_errors_honest(method, matrix):
    operator, exact = MatrixOperator(matrix), matrix.trace().item()
    draw = torch.Generator().manual_seed(1)
    found = [trace(operator, method, 18, draw) for _ in range(300)]
    values = torch.tensor([estimate.value for estimate in found], dtype=torch.float64)
    spread = float(values.std())
    assert abs(float(values.mean()) - exact) < 4 * spread / 300**0.5
    told = torch.tensor([estimate.standard_error for estimate in found], dtype=torch.float64).square().mean().sqrt()
    assert 0.85 * spread < float(told) < 1.5 * spread


def test_hutchinsons_variance_is_the_formulas():
    matrix = random_symmetric(20)
    draw = torch.Generator().manual_seed(0)
    samples = torch.tensor([trace(MatrixOperator(matrix), "hutchinson", 2, draw).value for _ in range(4000)], dtype=torch.float64)
    expected = 2 * (matrix.square().sum() - matrix.diagonal().square().sum()) / 2
    assert float(samples.var()) == pytest.approx(float(expected), rel=0.1)


def test_sketches_beat_hutchinson_where_few_eigenvalues_dominate():
    matrix = decaying(100)
    errors = {}
    for method in METHODS:
        draw = torch.Generator().manual_seed(0)
        found = [trace(MatrixOperator(matrix), method, 30, draw).value - matrix.trace().item() for _ in range(30)]
        errors[method] = torch.tensor(found).abs().mean()
    assert errors["hutch++"] < errors["hutchinson"] / 2
    assert errors["xtrace"] < errors["hutchinson"] / 2


@pytest.mark.parametrize("method", METHODS)
def test_enough_products_give_the_exact_trace(method):
    matrix = random_symmetric(21)
    operator = MatrixOperator(matrix)
    estimate = trace(operator, method, 21)
    assert estimate.value == pytest.approx(matrix.trace().item(), rel=1e-12)
    assert (estimate.standard_error, estimate.num_samples, operator.products) == (0.0, 21, 21)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", [7, 20, 33])
def test_no_more_products_are_spent_than_allowed(method, budget):
    operator = MatrixOperator(random_symmetric(50))
    trace(operator, method, budget)
    assert budget - 2 < operator.products <= budget


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_xtrace_is_exact_on_a_matrix_its_sketch_holds(rank):
    factor = torch.randn(50, rank, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = factor @ factor.T
    estimate = trace(MatrixOperator(matrix), "xtrace", 20)
    assert estimate.value == pytest.approx(matrix.trace().item(), rel=1e-10, abs=1e-12)
    assert estimate.standard_error == 0.0


def test_a_trace_from_few_probes_is_within_its_error():
    """PyHessian stops early and tells 13.1, 10.0, 11.9 … for 10.23, without an error."""
    matrix = random_symmetric(80) + 0.1 * torch.eye(80)
    for seed in range(5):
        estimate = trace(MatrixOperator(matrix), num_products=30, generator=torch.Generator().manual_seed(seed))
        assert abs(estimate.value - matrix.trace().item()) < 4 * estimate.standard_error


def test_the_callers_random_state_is_left_alone():
    before = torch.get_rng_state()
    first = trace(MatrixOperator(random_symmetric(50)), num_products=10)
    assert first == trace(MatrixOperator(random_symmetric(50)), num_products=10)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_finite_stays_so(method):
    matrix = torch.full((50, 50), math.nan, dtype=torch.float64)
    assert math.isnan(trace(MatrixOperator(matrix), method, 12).value)


def test_bad_options_are_refused():
    operator = MatrixOperator(random_symmetric(50))
    with pytest.raises(ValueError, match="method must be 'hutchinson', 'hutch"):
        trace(operator, "exact")
    with pytest.raises(ValueError, match="xtrace needs num_products ≥ 4"):
        trace(operator, "xtrace", 3)
