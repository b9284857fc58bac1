from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from nets import mlp
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

from loss_landscape import HessianOperator, LossSurface, MatrixOperator, eigenpairs
from loss_landscape.spectra.basis import Basis
from loss_landscape.spectra.lanczos import largest_magnitude_eigenpairs

BULK = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

SPECTRA = {
    "repeated_top": [10.0, 10, 10, 8, 8, *BULK],
    "repeated_both_ends": [5.0, 5, -5, -5, *(0.01 * BULK)],
    "clustered_top": [10.0, 9.99, 9.98, 9.97, *(0.1 * BULK)],  # the ghost trap: copies of 10 without reorthogonalisation
    "low_rank": [3.0, 2, 2, 1, *([0.0] * 200)],
    "identity": [1.0] * 60,
    "repeated_at_the_border": [100.0, 50, 1, 0.99, 0.99, 0.99, *(0.1 * BULK)],
    "mostly_negative": [-100.0, -3, 1, 0.5, *(0.1 * BULK)],
    "every_value_twice": [*BULK[:100], *BULK[:100]],
    "three_values": [4.0] * 30 + [1.0] * 100 + [-2.0] * 30,
    "projector": [1.0] * 20 + [0.0] * 100,
    "rank_one": [1.0] + [0.0] * 100,
    "nearly_repeated": [10.0, 10 - 1e-10, 10 - 2e-10, 3, *(0.1 * BULK)],
    "clusters_at_both_ends": [9.0, 9 - 1e-4, 9 - 2e-4, -9, -9 + 1e-4, -9 + 2e-4, *BULK],
    "repeated_bottom_only": [20.0, 15, 12, 11, 10, -1, -1, -1, -1, *(0.1 * BULK)],
    "geometric": [2.0**-k for k in range(40)] + [-(3.0**-k) for k in range(1, 30)],
    "six_times_the_top": [5.0] * 6 + [1.0] * 5 + [*(0.2 * BULK)],
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
    scale = float(torch.linalg.eigvalsh(matrix).abs().max())
    for tolerance, error in ((1e-4, 1e-4), (1e-8, 1e-10)):
        pairs = eigenpairs(MatrixOperator(matrix), 5, 3, tolerance=tolerance, generator=torch.Generator().manual_seed(seed))
        assert pairs.verified
        assert pairs.converged.all()
        true = (matrix @ pairs.vectors - pairs.vectors * pairs.values).norm(dim=0)
        assert (true <= 1.01 * tolerance * scale).all()
        assert (pairs.values - ends(matrix, 5, 3)).abs().max() < error * scale
        assert (pairs.vectors.T @ pairs.vectors - torch.eye(8)).abs().max() < 1e-10


@pytest.mark.parametrize("name", SPECTRA)
def test_a_bounded_basis_finds_the_same(name, monkeypatch):
    """Twenty-six vectors at a time, where the whole basis would take up to two hundred."""
    lengths, append = [], Basis.append
    monkeypatch.setattr(Basis, "append", lambda basis, row: (append(basis, row), lengths.append(_allocated(basis))))
    matrix = symmetric(SPECTRA[name], 0)
    budget = 26 * 8 * len(matrix) / 2**20
    pairs = eigenpairs(MatrixOperator(matrix), 5, 3, tolerance=1e-8, max_products=3000, memory_budget_mb=budget)
    assert pairs.verified
    assert pairs.converged.all()
    assert max(lengths) <= 26
    assert (pairs.values - ends(matrix, 5, 3)).abs().max() < 1e-9 * matrix.abs().max()
    assert (pairs.vectors.T @ pairs.vectors - torch.eye(8)).abs().max() < 1e-9


def test_a_bounded_basis_takes_few_more_products():
    """It restarts from more Ritz vectors than the wanted ones."""
    operator = MatrixOperator(symmetric(torch.linspace(0, 1, 300), 0))
    whole, bounded = (eigenpairs(operator, 5, 2, max_products=1000, memory_budget_mb=rows * 2400 / 2**20) for rows in (300, 22))
    assert bounded.converged.all()
    assert whole.num_products < bounded.num_products < 1.4 * whole.num_products


def _allocated(basis: Basis) -> int:
    return sum(len(block) for block in basis.blocks)


def test_a_budget_that_holds_too_few_vectors_is_refused():
    operator = MatrixOperator(torch.eye(1000))
    with pytest.raises(
        ValueError, match="3 eigenpairs of 1000 parameters take a basis of at least 12 vectors, but memory_bu.*0.01"
    ):
        eigenpairs(operator, 2, 1, memory_budget_mb=0.01)
    assert eigenpairs(operator, 2, 1, memory_budget_mb=1).converged.all()


def test_the_basis_may_lie_on_the_cpu(device):
    matrix = symmetric(SPECTRA["repeated_top"], 0).to(device)
    pairs = eigenpairs(MatrixOperator(matrix), 5, 2, tolerance=1e-8, basis_device="cpu")
    torch.testing.assert_close(pairs.values, ends(matrix.cpu(), 5, 2), rtol=0, atol=1e-8)
    assert pairs.vectors.device.type == device.type


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("tolerance", [1e-3, 1e-8])
def test_the_largest_magnitudes_come_from_both_ends(name, tolerance):
    matrix = symmetric(SPECTRA[name], 0)
    values = np.linalg.eigvalsh(matrix.numpy())
    expected = np.sort(np.abs(values))[-6:]
    pairs = largest_magnitude_eigenpairs(MatrixOperator(matrix), 6, tolerance=tolerance)
    assert pairs.verified
    assert pairs.converged.all()
    np.testing.assert_allclose(pairs.values.abs().sort().values.numpy(), expected, rtol=0, atol=tolerance * expected[-1])
    top, bottom = pairs.values[: pairs.num_top], pairs.values[pairs.num_top :]
    assert torch.equal(top, top.sort(descending=True).values)
    assert torch.equal(bottom, bottom.sort().values)
    assert (bottom < 0).all()


def test_magnitudes_on_one_side_only():
    pairs = largest_magnitude_eigenpairs(MatrixOperator(symmetric(SPECTRA["mostly_negative"], 0)), 2)
    assert pairs.values.tolist() == pytest.approx([-100, -3])
    assert pairs.num_top == 0
    with pytest.raises(ValueError, match="count must be ≥ 1, got 0"):
        largest_magnitude_eigenpairs(MatrixOperator(torch.eye(3)), 0)


@pytest.mark.parametrize("seed", range(3))
def test_a_start_that_is_blind_to_the_ends_finds_them(seed):
    """Eigenvectors of the middle span an invariant subspace: nothing leads out of it but what is drawn at random."""
    matrix = symmetric([7.0, 6, 5, -4, *(0.1 * BULK)], seed)
    vectors = torch.linalg.eigh(matrix).eigenvectors
    pairs = eigenpairs(
        MatrixOperator(matrix), 2, 1, tolerance=1e-6, generator=torch.Generator().manual_seed(seed), start=vectors[:, 50:60]
    )
    assert pairs.verified
    assert pairs.values.tolist() == pytest.approx([7, 6, -4], abs=1e-5)


def test_what_a_first_pair_lacks_is_not_left_out_of_the_second():
    """The start is the second eigenvector with a little of the first, within the tolerance; the first is found beside that."""
    matrix = torch.diag(torch.tensor([10.0, 5.0, *([0.0] * 100)], dtype=torch.float64))
    start = torch.zeros(102, dtype=torch.float64)
    start[:2] = torch.tensor([0.009, 1.0])
    pairs = eigenpairs(MatrixOperator(matrix), 1, 0, tolerance=1e-2, start=start)
    assert pairs.num_products > 1
    assert float((matrix @ pairs.vectors - 10 * pairs.vectors).norm()) < 1e-9
    assert pairs.residuals.max() < 1e-2


class Forgetful(MatrixOperator):
    """Runs out of memory at some of its products."""

    def __init__(self, matrix: Tensor, failing: range):
        super().__init__(matrix)
        self.calls, self.failing = 0, failing

    def matmat(self, vectors: Tensor) -> Tensor:
        self.calls += 1
        if self.calls in self.failing:
            raise torch.OutOfMemoryError("not enough memory")
        return super().matmat(vectors)


def test_out_of_memory_moves_the_basis_to_the_cpu_once(device):
    matrix = symmetric(SPECTRA["repeated_top"], 0).to(device)
    once, always = Forgetful(matrix, range(20, 21)), Forgetful(matrix, range(20, 1000))
    if device.type != "cpu":
        pairs = eigenpairs(once, 5, 2, tolerance=1e-8)
        assert pairs.note == "out of memory at product 20: the basis was moved to the CPU"
        torch.testing.assert_close(pairs.values, ends(matrix.cpu(), 5, 2), rtol=0, atol=1e-8)
        assert pairs.select(1, 1).note == pairs.note
    with pytest.raises(
        torch.OutOfMemoryError, match="product 20 with the operator .* on the CPU already; make the batches smaller"
    ):
        eigenpairs(always, 5, 2, tolerance=1e-8)


def convnet_hessian(seed: int) -> HessianOperator:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10)
    )
    centres, labels = torch.randn(10, 1, 12, 12), torch.randint(0, 10, (64,))
    images = centres[labels] + torch.randn(64, 1, 12, 12)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    return HessianOperator(LossSurface(net, nn.CrossEntropyLoss(), [(images, labels)]))


@pytest.mark.parametrize("seed", range(3))
def test_a_convnets_ends_take_at_most_seventy_products_and_none_is_missed(seed):
    operator = convnet_hessian(seed)
    pairs = eigenpairs(operator, 5, 2, tolerance=1e-3, generator=torch.Generator().manual_seed(seed))
    assert pairs.num_products == operator.num_products <= 70
    assert pairs.converged.all()
    top, bottom = (
        np.sort(eigsh(operator.to_scipy(), k=k, which=which, return_eigenvectors=False, tol=1e-8))
        for k, which in ((5, "LA"), (2, "SA"))
    )
    expected = np.concatenate([top[::-1], bottom])
    assert np.abs(pairs.values.numpy() - expected).max() < 1e-3 * top[-1]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
def test_residuals_are_the_true_ones_in_float32(seed, tolerance):
    matrix = symmetric(SPECTRA["repeated_top"], seed)
    pairs = eigenpairs(MatrixOperator(matrix.float()), 6, 2, tolerance=tolerance, generator=torch.Generator().manual_seed(seed))
    vectors = pairs.vectors.double()
    true = (matrix @ vectors - vectors * pairs.values).norm(dim=0) / pairs.values.abs().max()
    assert (true <= 3 * pairs.residuals).all()
    assert (pairs.values - ends(matrix, 6, 2)).abs().max() < 1e-3 * tolerance**0.5 + 1e-6


@pytest.mark.parametrize("kind", ["wishart", "signed"])
def test_random_matrices(kind):
    draw = torch.Generator().manual_seed(4)
    factor = torch.randn(80, 80, generator=draw, dtype=torch.float64)
    matrix = factor @ factor.T / 80 if kind == "wishart" else (factor + factor.T) / 2
    pairs = eigenpairs(MatrixOperator(matrix), 4, 4, tolerance=1e-10, generator=draw)
    torch.testing.assert_close(pairs.values, ends(matrix, 4, 4), rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [1, 2, 5, 30])
def test_all_pairs_of_a_small_matrix(size):
    """Sixty Ritz values of a 49-parameter net, five copies of the top one, is what no reorthogonalisation gives."""
    matrix = symmetric(BULK[:size], 1)
    pairs = eigenpairs(MatrixOperator(matrix), size + 3, 4, tolerance=1e-9, generator=torch.Generator().manual_seed(0))
    assert pairs.values.shape == (size,)
    assert pairs.num_top == size
    assert pairs.num_products == size
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
    first, again = (eigenpairs(operator, 3, 1, tolerance=1e-6, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.vectors, again.vectors)
    assert torch.equal(first.values, again.values)
    assert torch.equal(eigenpairs(operator, 3).vectors, eigenpairs(operator, 3).vectors)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_warm_start_takes_fewer_products_and_finds_the_same():
    matrix = symmetric(torch.linspace(-1, 1, 300).double() ** 3, 0)
    change = 1e-3 * symmetric(torch.randn(300, generator=torch.Generator().manual_seed(1)), 2)
    old = eigenpairs(MatrixOperator(matrix), 3, 0, tolerance=1e-4)
    cold, warm = (eigenpairs(MatrixOperator(matrix + change), 3, 0, tolerance=1e-4, start=start) for start in (None, old.vectors))
    assert warm.num_products < cold.num_products
    torch.testing.assert_close(warm.values, cold.values, rtol=0, atol=1e-6)
    single = eigenpairs(MatrixOperator(matrix + change), 3, 0, tolerance=1e-4, start=old.vectors[:, 0])
    torch.testing.assert_close(single.values, cold.values, rtol=0, atol=1e-6)
    exact = eigenpairs(MatrixOperator(matrix), 3, 0, tolerance=1e-8)
    again = eigenpairs(MatrixOperator(matrix), 3, 0, tolerance=1e-8, start=exact.vectors[:, :1])
    torch.testing.assert_close(again.values, exact.values, rtol=0, atol=1e-9)


def test_what_has_not_converged_says_so():
    operator = MatrixOperator(symmetric(torch.linspace(0, 1, 300), 0))
    pairs = eigenpairs(operator, 3, 1, tolerance=1e-10, max_products=12)
    assert pairs.num_products == operator.num_products == 12
    assert not pairs.converged.any()
    assert not pairs.verified
    assert (pairs.residuals > 1e-10).all()


def test_products_are_counted():
    operator = MatrixOperator(symmetric(SPECTRA["repeated_top"], 0))
    assert eigenpairs(operator, 5, 2).num_products == operator.num_products


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
    assert (chosen.num_top, chosen.num_products) == (2, pairs.num_products)
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
