from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from loss_landscape import MatrixOperator, spectral_density


def random_symmetric(size: int, seed: int = 0) -> Tensor:
    matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (matrix + matrix.T) / 2


def papyan(size: int) -> Tensor:
    """A Wishart matrix with three outliers: ZZᵀ/n + diag(5, 4, 3, 0 …)."""
    noise = torch.from_numpy(np.random.RandomState(0).randn(size, size))
    matrix = noise @ noise.T / size
    matrix[range(3), range(3)] += torch.tensor([5.0, 4.0, 3.0], dtype=torch.float64)
    return matrix


def test_papyans_toy_matrix():
    """Outliers at θ²/(θ−1) with θ the spike plus 1: 6.25, 5.33, 4.5 in the limit; the bulk ends near 4; the mean is 1 + 12/n."""
    matrix = papyan(500)
    exact = torch.linalg.eigvalsh(matrix)
    density = spectral_density(MatrixOperator(matrix), 10, 60, generator=torch.Generator().manual_seed(0))
    outliers = exact.flip(0)[:3]
    assert outliers.tolist() == pytest.approx([6.25, 16 / 3, 4.5], abs=0.15)
    for outlier in outliers:
        assert (density.nodes - outlier).abs().min() < 1e-3
    between = (density.nodes > float(outliers[1]) + 0.01) & (density.nodes < float(outliers[0]) - 0.01)
    assert density.weights[between].sum() < 1e-12  # no ghosts
    mean = density.moment(1)
    assert abs(mean.value - float(matrix.trace()) / 500) < 4 * mean.standard_error + 1e-12
    assert mean.value == pytest.approx(1 + 12 / 500, rel=0.03)
    within = density.expectation(lambda nodes: nodes < 4)
    assert within.value == pytest.approx(float((exact < 4).double().mean()), abs=4 * within.standard_error + 1e-3)
    assert density.negative_mass.value == 0.0


def test_quadrature_is_exact_on_polynomials_for_each_probe():
    matrix, steps = random_symmetric(40) / 5, 6
    density = spectral_density(MatrixOperator(matrix), 3, steps, generator=torch.Generator().manual_seed(5))
    draw = torch.Generator().manual_seed(5)
    for probe in range(3):
        signs = (torch.randint(0, 2, (40,), generator=draw) * 2 - 1).double() / 40**0.5
        image = signs
        for degree in range(2 * steps):
            exact = float(signs @ image)
            told = float((density.weights[probe] * density.nodes[probe] ** degree).sum())
            assert told == pytest.approx(exact, rel=1e-9, abs=1e-12)
            image = matrix @ image


def test_as_many_steps_as_parameters_give_the_spectrum_without_copies():
    matrix = random_symmetric(30)
    density = spectral_density(MatrixOperator(matrix), 1, 90, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(density.nodes[0], torch.linalg.eigvalsh(matrix), rtol=0, atol=1e-9)


def test_integrals_and_clusters():
    spread = 0.02 * torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = torch.linalg.qr(random_symmetric(200))[0]
    values = torch.cat([1 + spread[:100], 5 + spread[100:]])
    density = spectral_density(MatrixOperator((basis * values) @ basis.T), 10, 40, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(density.weights.sum(dim=1), torch.ones(10, dtype=torch.float64), atol=1e-12)
    x = torch.linspace(-1, 7, 2001, dtype=torch.float64)
    height = density.density(x, sigma=0.1)
    torch.testing.assert_close(density.density(x.numpy()[::-1], sigma=0.1), height.flip(0), rtol=1e-12, atol=1e-14)
    step = float(x[1] - x[0])
    assert float(height.sum() * step) == pytest.approx(1, abs=0.01)
    low = x < 3
    assert float(height[low].sum() * step) == pytest.approx(0.5, abs=0.15)
    assert float(x[low][height[low].argmax()]) == pytest.approx(1, abs=0.1)
    assert float(x[~low][height[~low].argmax()]) == pytest.approx(5, abs=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_statistics_are_within_their_errors(seed):
    matrix = random_symmetric(120)
    values = torch.linalg.eigvalsh(matrix)
    density = spectral_density(MatrixOperator(matrix), 16, 120, generator=torch.Generator().manual_seed(seed))
    exact = {
        density.trace: values.sum(),
        density.moment(2): values.square().mean(),
        density.negative_mass: (values < 0).double().mean(),
        density.effective_dimension(2.0): (values.clamp_min(0) / (values.clamp_min(0) + 2)).sum(),
        density.epsilon_rank(0.3): (values.abs() > 0.3 * values.abs().max()).double().sum(),
    }
    for estimate, expected in exact.items():
        assert abs(estimate.value - float(expected)) <= 4 * estimate.standard_error + 1e-9
        assert estimate.num_samples == 16


@pytest.mark.parametrize("size", [500, 1000])
def test_papyans_toy_numbers(size):
    """From its random state: outliers 6.230, 5.318, 4.405 and a bulk to 3.876; for 1000, 6.203, 5.210, 4.387 and 3.935."""
    numbers = {500: [6.230, 5.318, 4.405, 3.876], 1000: [6.203, 5.210, 4.387, 3.935]}[size]
    density = spectral_density(MatrixOperator(papyan(size)), 2, 60, generator=torch.Generator().manual_seed(0))
    for nodes in density.nodes:
        assert nodes[-4:].flip(0).tolist() == pytest.approx(numbers, abs=2e-2)
        assert nodes[-3:].flip(0).tolist() == pytest.approx(numbers[:3], abs=6e-4)


def test_papyans_boundaries():
    """Of diag(1 … 5), and of the absolute spectrum of diag(−2, −1, 3, 4, 5): 1 and 5."""
    for values in ([1.0, 2, 3, 4, 5], [-2.0, -1, 3, 4, 5]):
        operator = MatrixOperator(torch.diag(torch.tensor(values, dtype=torch.float64)))
        sizes = spectral_density(operator, 1, 5).nodes.abs()
        assert math.isclose(float(sizes.min()), 1, rel_tol=1e-9)
        assert math.isclose(float(sizes.max()), 5, rel_tol=1e-9)


def test_clusters_are_found_once_at_full_length():
    """Ten copies' worth of room for ghosts: three tight clusters far above the rest."""
    close = torch.cat([torch.tensor([10.0, 9.0, 8.0]) + shift for shift in (0, 1e-3, 2e-3)]).double()
    values = torch.cat([close, 0.1 * torch.randn(31, generator=torch.Generator().manual_seed(0), dtype=torch.float64)])
    basis = torch.linalg.qr(random_symmetric(40))[0]
    density = spectral_density(MatrixOperator((basis * values) @ basis.T), 3, 40, generator=torch.Generator().manual_seed(0))
    for nodes in density.nodes:
        torch.testing.assert_close(nodes, values.sort().values, rtol=0, atol=1e-9)


def test_the_frobenius_norm_and_the_log_determinant_come_from_the_same_products():
    factor = random_symmetric(60)
    matrix = factor @ factor.T / 60
    density = spectral_density(MatrixOperator(matrix), 12, 60, generator=torch.Generator().manual_seed(1))
    norm, shifted = density.frobenius_norm, density.log_determinant(0.1)
    assert abs(norm.value - float(matrix.norm())) < 4 * norm.standard_error
    exact = torch.linalg.slogdet(matrix + 0.1 * torch.eye(60, dtype=torch.float64)).logabsdet
    assert abs(shifted.value - float(exact)) < 4 * shifted.standard_error
    assert math.isnan(spectral_density(MatrixOperator(-matrix), 2, 10).log_determinant().value)


def test_unused_places_are_no_eigenvalues():
    """log 0 = −∞ would count there."""
    matrix = torch.diag(torch.tensor([1.0, 1, 1, 3, 3, 2, 2, 2], dtype=torch.float64))
    density = spectral_density(MatrixOperator(matrix), 2, 8)
    assert density.log_determinant().value == pytest.approx(math.log(3**2 * 2**3), abs=1e-12)
    assert density.trace_of(torch.reciprocal).value == pytest.approx(3 + 2 / 3 + 3 / 2, abs=1e-12)


class Forgetful(MatrixOperator):
    """Has memory for so many products only."""

    def __init__(self, matrix: Tensor, most: int):
        super().__init__(matrix)
        self.most = most

    def matmat(self, vectors: Tensor) -> Tensor:
        if self.num_products > self.most:
            raise torch.OutOfMemoryError("not enough memory")
        return super().matmat(vectors)


def test_out_of_memory_it_ends_with_the_probes_it_has():
    matrix = random_symmetric(60)
    density = spectral_density(Forgetful(matrix, 35), 8, 10, on_oom="fewer_probes")
    whole = spectral_density(MatrixOperator(matrix), 8, 10)
    assert torch.equal(density.nodes, whole.nodes[:3])
    assert density.note == density.trace.note == density.frobenius_norm.note == "out of memory: 3 of 8 probes"
    assert density.trace.num_samples == 3
    assert whole.note == ""
    for most, on_oom in ((35, "error"), (15, "fewer_probes")):
        with pytest.raises(torch.OutOfMemoryError):
            spectral_density(Forgetful(matrix, most), 8, 10, on_oom=on_oom)


def test_a_krylov_space_that_ends_early_is_a_shorter_row():
    matrix = torch.diag(torch.tensor([1.0, 1, 1, 3, 3, -1, -1, -1], dtype=torch.float64))
    density = spectral_density(MatrixOperator(matrix), 4, 8, generator=torch.Generator().manual_seed(0))
    assert (density.weights > 0).sum(dim=1).max() <= 3
    assert density.trace.value == pytest.approx(6.0, abs=1e-12)
    assert density.negative_mass.value == pytest.approx(3 / 8, abs=1e-12)


def test_rounding_about_zero_is_not_negative_mass():
    draw = torch.Generator().manual_seed(0)
    factor = torch.randn(100, 5, generator=draw)
    density = spectral_density(MatrixOperator(factor @ factor.T), 4, 30, generator=draw)
    assert density.negative_mass.value < 1e-6


def test_a_single_probe_has_no_error_and_nan_stays():
    density = spectral_density(MatrixOperator(random_symmetric(30)), 1, 10)
    assert math.isnan(density.trace.standard_error)
    lost = spectral_density(MatrixOperator(torch.full((30, 30), math.nan)), 2, 10)
    assert math.isnan(lost.trace.value)
    assert math.isnan(lost.negative_mass.value)


def test_a_spectrum_of_one_value_has_a_density():
    density = spectral_density(MatrixOperator(2 * torch.eye(20, dtype=torch.float64)), 2, 5)
    assert torch.isfinite(density.density(torch.linspace(1, 3, 11))).all()


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="must be ≥ 1, got 0 and 50"):
        spectral_density(MatrixOperator(torch.eye(3)), 0)
    with pytest.raises(ValueError, match="on_oom must be 'error' or 'fewer_probes', got 'cpu'"):
        spectral_density(MatrixOperator(torch.eye(3)), on_oom="cpu")
    with pytest.raises(ValueError, match="scale must be > 0"):
        spectral_density(MatrixOperator(torch.eye(3)), 2).effective_dimension(0)


def test_what_is_small_beside_the_largest_eigenvalue_counts_as_zero():
    """Exact at as many steps as there are eigenvalues: 1 of 5 negative, 2 of 5 too small to have a sign."""
    operator = MatrixOperator(torch.diag(torch.tensor([10.0, 1.0, -1.0, 5e-3, -5e-3], dtype=torch.float64)))
    density = spectral_density(operator, num_probes=2, lanczos_steps=5, zero_epsilon=1e-3)
    assert density.negative_mass.value == pytest.approx(1 / 5)
    assert density.epsilon_rank(1e-6).value == pytest.approx(3)
    finer = spectral_density(operator, num_probes=2, lanczos_steps=5, zero_epsilon=0)
    assert finer.negative_mass.value == pytest.approx(2 / 5)
    with pytest.raises(ValueError, match="zero_epsilon is relative"):
        spectral_density(operator, zero_epsilon=1.0)


def test_steps_beyond_the_size_are_told():
    matrix = torch.diag(torch.tensor([3.0, 1.0, -2.0]))
    assert spectral_density(matrix, num_probes=2, lanczos_steps=3).note == ""
    assert spectral_density(matrix, num_probes=2).note == "3 Lanczos steps, as many as the matrix has rows, not 50"
