"""Normal probes beside signs: unbiased as well, with the variance of their own formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from loss_landscape import Checkpointing, diagonal, frobenius_norm, spectral_density, trace, trace_and_frobenius_norm

DRAWS = 2000


def random_symmetric(size: int) -> Tensor:
    matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (matrix + matrix.T) / 2


MATRIX = random_symmetric(12)


def test_the_trace_by_normal_probes_has_the_variance_of_the_formula():
    """2‖H‖²_F a sample, where that of signs lacks the diagonal's part (Avron and Toledo 2011)."""
    draw = torch.Generator().manual_seed(1)
    samples = torch.cat([trace(MATRIX, num_products=10, probes="normal", generator=draw).samples for _ in range(DRAWS // 10)])
    expected = float(2 * MATRIX.square().sum())
    assert abs(float(samples.mean() - MATRIX.trace())) < 4 * math.sqrt(expected / DRAWS)
    assert float(samples.var()) == pytest.approx(expected, rel=0.15)


def test_the_frobenius_norm_by_normal_probes():
    exact = float(MATRIX.square().sum())
    draw = torch.Generator().manual_seed(2)
    samples = torch.cat([frobenius_norm(MATRIX, 10, probes="normal", generator=draw).samples for _ in range(DRAWS // 10)])
    assert abs(float(samples.mean()) - exact) < 4 * float(samples.std()) / math.sqrt(DRAWS)
    both = trace_and_frobenius_norm(MATRIX, 10, probes="normal", generator=5)
    assert both[1] == frobenius_norm(MATRIX, 10, probes="normal", generator=5)


def test_hutch_plus_plus_with_normal_probes_is_unbiased():
    draw = torch.Generator().manual_seed(3)
    found = [trace(MATRIX, "hutch++", num_products=9, probes="normal", generator=draw).value for _ in range(400)]
    values = torch.tensor(found, dtype=torch.float64)
    assert abs(float(values.mean() - MATRIX.trace())) < 4 * float(values.std()) / math.sqrt(400)


def test_the_diagonal_by_normal_probes_has_the_variance_of_the_formula():
    """Σⱼ H²ᵢⱼ + H²ᵢᵢ a sample, where that of signs is Σⱼ≠ᵢ H²ᵢⱼ."""
    draw = torch.Generator().manual_seed(4)
    values = torch.stack([diagonal(MATRIX, 10, probes="normal", generator=draw).values for _ in range(DRAWS // 10)])
    expected = (MATRIX.square().sum(dim=1) + MATRIX.diagonal().square()) / 10
    assert ((values.mean(dim=0) - MATRIX.diagonal()).abs() < 5 * (expected / (DRAWS // 10)).sqrt()).all()
    torch.testing.assert_close(values.var(dim=0), expected, rtol=0.5, atol=0)


def test_a_density_by_normal_probes_has_the_spectrums_moments():
    density = spectral_density(MATRIX, 400, 5, probes="normal", generator=6)
    values = torch.linalg.eigvalsh(MATRIX)
    for order in (1, 2, 3):
        moment = density.moment(order)
        assert abs(moment.value - float((values**order).mean())) < 4 * moment.standard_error
    torch.testing.assert_close(density.weights.sum(dim=1), torch.ones(400, dtype=torch.float64))


def test_a_density_by_normal_probes_goes_on_after_its_finished_probes(tmp_path):
    options = {"probes": "normal", "generator": 6, "checkpointing": Checkpointing(tmp_path / "density.npz")}
    spectral_density(MATRIX, 2, 5, **options)
    resumed, whole = spectral_density(MATRIX, 4, 5, **options), spectral_density(MATRIX, 4, 5, probes="normal", generator=6)
    assert torch.equal(resumed.nodes, whole.nodes)
    signs = spectral_density(MATRIX, 2, 5, generator=6, checkpointing=options["checkpointing"])
    assert torch.equal(signs.nodes, spectral_density(MATRIX, 2, 5, generator=6).nodes)


@pytest.mark.parametrize("analyse", [trace, frobenius_norm, trace_and_frobenius_norm, diagonal, spectral_density])
def test_other_probes_are_refused(analyse):
    with pytest.raises(ValueError, match="probes must be 'rademacher' or 'normal', got 'sphere'"):
        analyse(MATRIX, probes="sphere")


def test_xtrace_keeps_to_its_sphere():
    with pytest.raises(ValueError, match="xtrace draws its vectors uniformly on a sphere; leave probes out"):
        trace(MATRIX, "xtrace", num_products=8, probes="normal")
