from __future__ import annotations

import math

import pytest
import torch
from nets import mlp
from torch import Tensor, nn

from loss_landscape import HessianOperator, LossSurface, MatrixOperator, eigenpairs

BULK = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

SPECTRA = {
    "repeated_top": [10.0, 10, 10, 8, 8, *BULK],
    "repeated_both_ends": [5.0, 5, -5, -5, *(0.01 * BULK)],
    "clustered_top": [10.0, 9.99, 9.98, 9.97, *(0.1 * BULK)],  # the ghost trap: copies of 10 without reorthogonalisation
    "low_rank": [3.0, 2, 2, 1, *([0.0] * 200)],
    "identity": [1.0] * 60,
    "repeated_at_the_border": [100.0, 50, 1, 0.99, 0.99, 0.99, *(0.1 * BULK)],
    "mostly_negative": [-100.0, -3, 1, 0.5, *(0.1 * BULK)],
}


def symmetric(values: list[float] | Tensor, seed: int) -> Tensor:
    values = torch.as_tensor(values, dtype=torch.float64)
    draw = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(len(values), len(values), generator=draw, dtype=torch.float64))[0]
    matrix = (basis * values) @ basis.T
    return (matrix + matrix.T) / 2


def ends(matrix: Tensor, top: int, bottom: int) -> Tensor:
    values = torch.linalg.eigvalsh(matrix)
    return torch.cat([values.flip(0)[:top], values[:bottom]])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SPECTRA)
def test_no_eigenvalue_is_missed_or_found_twice(name, seed):
    matrix = symmetric(SPECTRA[name], seed)
    pairs = eigenpairs(MatrixOperator(matrix), 5, 3, 1e-8, torch.Generator().manual_seed(seed))
    scale = matrix.abs().max()
    assert pairs.verified
    assert pairs.converged.all()
    assert (pairs.values - ends(matrix, 5, 3)).abs().max() < 1e-9 * scale
    assert (pairs.vectors.T @ pairs.vectors - torch.eye(8)).abs().max() < 1e-10


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
def test_residuals_are_the_true_ones_in_float32(seed, tolerance):
    matrix = symmetric(SPECTRA["repeated_top"], seed)
    pairs = eigenpairs(MatrixOperator(matrix.float()), 6, 2, tolerance, torch.Generator().manual_seed(seed))
    vectors = pairs.vectors.double()
    true = (matrix @ vectors - vectors * pairs.values).norm(dim=0) / pairs.values.abs().max()
    assert (true <= 3 * pairs.residuals).all()
    assert (pairs.values - ends(matrix, 6, 2)).abs().max() < 1e-3 * tolerance**0.5 + 1e-6


@pytest.mark.parametrize("kind", ["wishart", "signed"])
def test_random_matrices(kind):
    draw = torch.Generator().manual_seed(4)
    factor = torch.randn(80, 80, generator=draw, dtype=torch.float64)
    matrix = factor @ factor.T / 80 if kind == "wishart" else (factor + factor.T) / 2
    pairs = eigenpairs(MatrixOperator(matrix), 4, 4, 1e-10, draw)
    torch.testing.assert_close(pairs.values, ends(matrix, 4, 4), rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [1, 2, 5, 30])
def test_all_pairs_of_a_small_matrix(size):
    """Sixty Ritz values of a 49-parameter net, five copies of the top one, is what no reorthogonalisation gives."""
    matrix = symmetric(BULK[:size], 1)
    pairs = eigenpairs(MatrixOperator(matrix), size + 3, 4, 1e-9, torch.Generator().manual_seed(0))
    assert pairs.values.shape == (size,)
    assert pairs.num_top == size
    assert pairs.products == size
    torch.testing.assert_close(pairs.values, ends(matrix, size, 0), rtol=1e-10, atol=1e-12)


def test_both_ends_are_clipped_to_the_size():
    pairs = eigenpairs(MatrixOperator(torch.diag(torch.tensor([3.0, 1.0, 2.0]))), 2, 5)
    assert pairs.values.tolist() == pytest.approx([3, 2, 1])
    assert pairs.num_top == 2


def test_largest_is_meant_algebraically():
    matrix = symmetric(SPECTRA["mostly_negative"], 0)
    assert eigenpairs(MatrixOperator(matrix), 1, 0).values.tolist() == pytest.approx([1.0], rel=1e-6)
    assert eigenpairs(MatrixOperator(matrix), 0, 1).values.tolist() == pytest.approx([-100.0])


def test_it_is_a_function_of_the_generators_state():
    operator = MatrixOperator(symmetric(SPECTRA["repeated_top"], 0))
    before = torch.get_rng_state()
    first, again = (eigenpairs(operator, 3, 1, 1e-6, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.vectors, again.vectors)
    assert torch.equal(first.values, again.values)
    assert torch.equal(eigenpairs(operator, 3).vectors, eigenpairs(operator, 3).vectors)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_warm_start_takes_fewer_products_and_finds_the_same():
    matrix = symmetric(torch.linspace(-1, 1, 300).double() ** 3, 0)
    change = 1e-3 * symmetric(torch.randn(300, generator=torch.Generator().manual_seed(1)), 2)
    old = eigenpairs(MatrixOperator(matrix), 3, 0, 1e-4)
    cold, warm = (eigenpairs(MatrixOperator(matrix + change), 3, 0, 1e-4, start=start) for start in (None, old.vectors))
    assert warm.products < cold.products
    torch.testing.assert_close(warm.values, cold.values, rtol=0, atol=1e-6)
    single = eigenpairs(MatrixOperator(matrix + change), 3, 0, 1e-4, start=old.vectors[:, 0])
    torch.testing.assert_close(single.values, cold.values, rtol=0, atol=1e-6)
    exact = eigenpairs(MatrixOperator(matrix), 3, 0, 1e-8)
    again = eigenpairs(MatrixOperator(matrix), 3, 0, 1e-8, start=exact.vectors[:, :1])
    torch.testing.assert_close(again.values, exact.values, rtol=0, atol=1e-9)


def test_what_has_not_converged_says_so():
    operator = MatrixOperator(symmetric(torch.linspace(0, 1, 300), 0))
    pairs = eigenpairs(operator, 3, 1, 1e-10, max_products=12)
    assert pairs.products == operator.products == 12
    assert not pairs.converged.any()
    assert not pairs.verified
    assert (pairs.residuals > 1e-10).all()


def test_products_are_counted():
    operator = MatrixOperator(symmetric(SPECTRA["repeated_top"], 0))
    assert eigenpairs(operator, 5, 2).products == operator.products


def test_a_spectrum_of_zeros():
    pairs = eigenpairs(MatrixOperator(torch.zeros(40, 40, dtype=torch.float64)), 2, 1)
    assert pairs.values.tolist() == [0, 0, 0]
    assert pairs.converged.all()


def test_a_diverged_net_has_nan_eigenvalues():
    net = mlp()
    with torch.no_grad():
        net[0].weight.fill_(math.nan)
    surface = LossSurface(net, nn.CrossEntropyLoss(), [(torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))])
    pairs = eigenpairs(HessianOperator(surface), 2, 1)
    assert pairs.values.isnan().all()
    assert not pairs.converged.any()
    assert pairs.select(1, 1).vectors.shape == (surface.size, 2)


def test_select_takes_some_of_each_end():
    pairs = eigenpairs(MatrixOperator(symmetric(SPECTRA["repeated_top"], 0)), 4, 2)
    chosen = pairs.select(2, 1)
    assert torch.equal(chosen.values, pairs.values[[0, 1, 4]])
    assert torch.equal(chosen.vectors, pairs.vectors[:, [0, 1, 4]])
    assert (chosen.num_top, chosen.products) == (2, pairs.products)
    assert pairs.select(0, 2).num_top == 0
    with pytest.raises(ValueError, match="asked for 5 largest and 0 smallest eigenpairs, but 4 and 2 were solved for"):
        pairs.select(5, 0)
    with pytest.raises(ValueError, match="top and bottom ≥ 0"):
        pairs.select(0, 0)


def test_select_serves_either_end_where_all_pairs_are_known():
    pairs = eigenpairs(MatrixOperator(torch.diag(torch.tensor([3.0, 1.0, 2.0]))), 5, 2)
    assert pairs.select(1, 1).values.tolist() == pytest.approx([3, 1])
    assert pairs.select(1, 5).values.tolist() == pytest.approx([3, 1, 2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 0}, "not both 0"),
        ({"top": -1, "bottom": 2}, "not both 0"),
        ({"tolerance": 0.0}, "tolerance must be between 0 and 1"),
        ({"top": 3, "max_products": 2}, "max_products must be at least the 3 pairs"),
        ({"start": torch.zeros(3)}, r"start must be \[P\] or \[P, k\] with P = 40"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        eigenpairs(MatrixOperator(torch.eye(40)), **options)
