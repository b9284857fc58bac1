from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from loss_landscape import MatrixOperator, trace
from loss_landscape.spectra.traces import frobenius_norm, trace_and_frobenius_norm

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
    found = [trace(operator, method, num_products=18, generator=draw) for _ in range(300)]
    values = torch.tensor([estimate.value for estimate in found], dtype=torch.float64)
    spread = float(values.std())
    assert abs(float(values.mean()) - exact) < 4 * spread / 300**0.5
    told = torch.tensor([estimate.standard_error for estimate in found], dtype=torch.float64).square().mean().sqrt()
    assert 0.85 * spread < float(told) < 1.5 * spread


def test_hutchinsons_variance_is_the_formulas():
    matrix = random_symmetric(20)
    draw = torch.Generator().manual_seed(0)
    samples = torch.tensor(
        [trace(MatrixOperator(matrix), "hutchinson", num_products=2, generator=draw).value for _ in range(4000)],
        dtype=torch.float64,
    )
    expected = 2 * (matrix.square().sum() - matrix.diagonal().square().sum()) / 2
    assert float(samples.var()) == pytest.approx(float(expected), rel=0.1)


def test_sketches_beat_hutchinson_where_few_eigenvalues_dominate():
    matrix = decaying(100)
    errors = {}
    for method in METHODS:
        draw = torch.Generator().manual_seed(0)
        found = [
            trace(MatrixOperator(matrix), method, num_products=30, generator=draw).value - matrix.trace().item()
            for _ in range(30)
        ]
        errors[method] = torch.tensor(found).abs().mean()
    assert errors["hutch++"] < errors["hutchinson"] / 2
    assert errors["xtrace"] < errors["hutchinson"] / 2


@pytest.mark.parametrize("method", METHODS)
def test_enough_products_give_the_exact_trace(method):
    matrix = random_symmetric(21)
    operator = MatrixOperator(matrix)
    estimate = trace(operator, method, num_products=21)
    assert estimate.value == pytest.approx(matrix.trace().item(), rel=1e-12)
    assert (estimate.standard_error, estimate.num_samples, operator.num_products) == (0.0, 21, 21)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", [7, 20, 33])
def test_no_more_products_are_spent_than_allowed(method, budget):
    operator = MatrixOperator(random_symmetric(50))
    trace(operator, method, num_products=budget)
    assert budget - 2 < operator.num_products <= budget


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_xtrace_is_exact_on_a_matrix_its_sketch_holds(rank):
    factor = torch.randn(50, rank, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = factor @ factor.T
    estimate = trace(MatrixOperator(matrix), "xtrace", num_products=20)
    assert estimate.value == pytest.approx(matrix.trace().item(), rel=1e-10, abs=1e-12)
    assert estimate.standard_error <= 1e-10 * (1 + estimate.value)


def test_xtrace_does_not_take_a_steep_spectrum_for_an_exhausted_one():
    """In float32: what is 1e-4 of the largest is no rounding, and 4000 of it count."""
    draw = torch.Generator().manual_seed(0)
    values = 4e-5 * torch.rand(4000, generator=draw)
    values[:4] = torch.tensor([8.0, 4.0, 2.0, 1.0])
    exact = float(values.double().sum())
    for seed in range(3):
        estimate = trace(
            MatrixOperator(torch.diag(values)), "xtrace", num_products=20, generator=torch.Generator().manual_seed(seed)
        )
        assert estimate.standard_error > 0
        assert abs(estimate.value - exact) < 4 * estimate.standard_error + 1e-6 * exact


@pytest.mark.parametrize("method", METHODS)
def test_rounds_make_no_difference(method):
    """As one long sketch and one long residual: the formulas of the papers, from the same draws."""
    matrix, draw = random_symmetric(90), torch.Generator().manual_seed(3)
    estimate = trace(MatrixOperator(matrix), method, num_products=48, generator=torch.Generator().manual_seed(3))
    if method == "hutchinson":
        signs = drawn_signs(draw, 90, 48)
        assert estimate.value == pytest.approx(float((signs * (matrix @ signs)).sum() / 48), rel=1e-12)
    if method == "hutch++":  # 8 for the sketch, 8 for the rest, and once more
        parts = [drawn_signs(draw, 90, 8) for _ in range(4)]
        basis = torch.linalg.qr(matrix @ torch.cat([parts[0], parts[2]], dim=1))[0]
        rest = torch.cat([parts[1], parts[3]], dim=1)
        rest = rest - basis @ (basis.T @ rest)
        forms = (rest * (matrix @ rest)).sum(dim=0)
        assert estimate.value == pytest.approx(float((basis * (matrix @ basis)).sum() + forms.mean()), rel=1e-10)
        assert estimate.standard_error == pytest.approx(float(forms.std()) / 4, rel=1e-10)
    assert estimate.num_samples == {"hutchinson": 48, "hutch++": 16, "xtrace": 24}[method]


def drawn_signs(draw: torch.Generator, size: int, count: int) -> Tensor:
    return torch.stack([(torch.randint(0, 2, (size,), generator=draw) * 2 - 1).double() for _ in range(count)], dim=1)


@pytest.mark.parametrize("method", METHODS)
def test_a_target_error_is_met_with_no_more_products_than_that_takes(method):
    matrix = decaying(200)
    rough = trace(MatrixOperator(matrix), method, num_products=96, generator=torch.Generator().manual_seed(0))
    operator = MatrixOperator(matrix)
    target = 1.2 * rough.standard_error
    estimate = trace(operator, method, num_products=190, generator=torch.Generator().manual_seed(0), target_error=target)
    assert estimate.standard_error <= target
    assert operator.num_products <= 96
    assert estimate.num_samples >= 16
    assert (
        trace(MatrixOperator(matrix), method, num_products=190, target_error=1e9).num_samples == 16
    )  # fewer might not know their error
    capped = MatrixOperator(matrix)
    unmet = trace(capped, method, num_products=30, generator=torch.Generator().manual_seed(0), target_error=1e-9)
    assert capped.num_products == 30
    untold = trace(MatrixOperator(matrix), method, num_products=30, generator=torch.Generator().manual_seed(0))
    assert unmet == replace(untold, note="30 products did not bring the standard error to 1e-09")
    enough = MatrixOperator(matrix)  # for every column, but the target takes fewer
    assert (
        trace(enough, method, num_products=500, generator=torch.Generator().manual_seed(0), target_error=target).standard_error
        <= target
    )
    assert enough.num_products <= 96


def test_errors_cover_where_a_target_ends_the_sampling():
    matrix = random_symmetric(100)
    draw = torch.Generator().manual_seed(0)
    found = [trace(MatrixOperator(matrix), num_products=99, generator=draw, target_error=20.0) for _ in range(200)]
    errors = torch.tensor([estimate.value - matrix.trace().item() for estimate in found])
    told = torch.tensor([estimate.standard_error for estimate in found])
    assert float((errors.abs() <= 2 * told).double().mean()) > 0.88
    assert abs(float(errors.mean())) < 4 * float(errors.std()) / 200**0.5


@pytest.mark.parametrize("matrix", [random_symmetric(60), decaying(60)], ids=["flat", "decaying"])
def test_the_frobenius_norm_and_its_error(matrix):
    exact = float(matrix.norm())
    draw = torch.Generator().manual_seed(2)
    found = [frobenius_norm(MatrixOperator(matrix), 40, generator=draw) for _ in range(300)]
    values = torch.tensor([estimate.value for estimate in found])
    told = torch.tensor([estimate.standard_error for estimate in found]).square().mean().sqrt()
    spread = float((values - exact).square().mean().sqrt())
    assert abs(float(values.square().mean()) - exact**2) < 4 * float(values.square().std()) / 300**0.5  # its square is unbiased
    assert 0.8 * spread < float(told) < 1.3 * spread
    assert frobenius_norm(MatrixOperator(matrix), 60).value == pytest.approx(exact, rel=1e-12)
    assert frobenius_norm(MatrixOperator(matrix), 60).standard_error == 0


def test_trace_and_norm_come_from_one_pass():
    operator = MatrixOperator(random_symmetric(60))
    total, norm = trace_and_frobenius_norm(operator, 20, generator=torch.Generator().manual_seed(4))
    assert operator.num_products == 20
    assert total == trace(operator, num_products=20, generator=torch.Generator().manual_seed(4))
    assert norm == frobenius_norm(operator, 20, generator=torch.Generator().manual_seed(4))
    exact = trace_and_frobenius_norm(operator, 60)
    assert exact == (trace(operator, num_products=60), frobenius_norm(operator, 60))


@pytest.mark.parametrize(("method", "tolerance"), [("hutchinson", 1e-3), ("hutch++", 1e-3), ("xtrace", 5e-4)])
def test_curvlinops_cases_the_mean_of_estimates_goes_to_the_trace(method, tolerance):
    torch.manual_seed(0)
    matrix = torch.rand(10, 10, dtype=torch.float64)
    matrix = (matrix + matrix.T) / 2  # XTrace is for symmetric matrices
    operator, draw = MatrixOperator(matrix), torch.Generator().manual_seed(0)
    total, count = 0.0, 0
    while count < 100 or abs(total / count - matrix.trace().item()) > tolerance * matrix.trace().item():
        total, count = total + trace(operator, method, num_products=6, generator=draw).value, count + 1
        assert operator.num_products < 1e5


def test_curvlinops_docstring_matrix():
    torch.manual_seed(0)
    matrix = torch.rand(50, 50)
    matrix = (matrix + matrix.T) / 2  # of the same trace
    assert trace(MatrixOperator(matrix), num_products=50).value == pytest.approx(23.7836, abs=1e-4)
    for products in (6, 30):
        estimate = trace(MatrixOperator(matrix), "hutch++", num_products=products)
        assert abs(estimate.value - 23.7836) < 4 * estimate.standard_error


class Forgetful(MatrixOperator):
    """Has memory for so many products only."""

    def __init__(self, matrix: Tensor, most: int):
        super().__init__(matrix)
        self.left = most

    def matmat(self, vectors: Tensor) -> Tensor:
        if vectors.shape[1] > self.left:
            raise torch.OutOfMemoryError("not enough memory")
        self.left -= vectors.shape[1]
        return super().matmat(vectors)


@pytest.mark.parametrize("method", METHODS)
def test_out_of_memory_it_ends_with_the_samples_it_has(method):
    matrix = random_symmetric(100)
    estimate = trace(Forgetful(matrix, 31), method, num_products=90, on_oom="fewer_probes")
    samples, spent = {"hutchinson": (31, 31), "hutch++": (10, 30), "xtrace": (11, 22)}[method]
    assert estimate.num_samples == samples
    assert estimate.note == f"out of memory: {spent} of 90 products"
    assert abs(estimate.value - matrix.trace().item()) < 4 * estimate.standard_error
    assert trace(Forgetful(matrix, 90), method, num_products=90, on_oom="fewer_probes").note == ""
    with pytest.raises(torch.OutOfMemoryError):
        trace(Forgetful(matrix, 31), method, num_products=90)
    with pytest.raises(torch.OutOfMemoryError):
        trace(Forgetful(matrix, 1), method, num_products=90, on_oom="fewer_probes")


def test_out_of_memory_both_of_one_pass_say_so():
    total, norm = trace_and_frobenius_norm(Forgetful(random_symmetric(100), 12), 40, on_oom="fewer_probes")
    assert total.note == norm.note == "out of memory: 12 of 40 products"
    assert total.num_samples == norm.num_samples == 12


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
    assert math.isnan(trace(MatrixOperator(matrix), method, num_products=12).value)


def test_bad_options_are_refused():
    operator = MatrixOperator(random_symmetric(50))
    with pytest.raises(ValueError, match="method must be 'hutchinson', 'hutch"):
        trace(operator, "exact")
    with pytest.raises(ValueError, match="xtrace needs num_products ≥ 4"):
        trace(operator, "xtrace", num_products=3)
    with pytest.raises(ValueError, match="target_error must be > 0, in the units of what is estimated, got 0"):
        trace(operator, num_products=9, target_error=0)
    with pytest.raises(ValueError, match="on_oom must be 'error' or 'fewer_probes', got 'cpu'"):
        frobenius_norm(operator, 9, on_oom="cpu")
