"""Metrics against closed forms, NumPy's decompositions and nets whose features are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from taskshift.metrics import rank_drops, ranks, units, weights
from taskshift.metrics.features import Features, of_each_layer
from taskshift.metrics.gini import gini


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_spectrum(sigma: list[float], shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """A float64 matrix of `shape` whose non-zero singular values are `sigma`."""
    left, _ = torch.linalg.qr(torch.randn(shape[0], len(sigma), generator=seeded(seed), dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(shape[1], len(sigma), generator=seeded(seed + 1), dtype=torch.float64))
    return left @ torch.diag(torch.tensor(sigma, dtype=torch.float64)) @ right.T


# -- singular values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(30, 80), (80, 30), (40, 40), (1, 5)])
@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_singular_values_are_numpys(shape, scale):
    matrix = torch.randn(shape, generator=seeded(), dtype=torch.float64) * scale
    expected = np.linalg.svd(matrix.numpy(), compute_uv=False)
    found = ranks.singular_values(matrix)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-7 * expected[0])


def test_every_singular_value_counts_not_the_first_twenty():
    sigma = ranks.singular_values(torch.randn(200, 100, generator=seeded()))
    assert len(sigma) == 100
    expected = np.linalg.svd(torch.randn(200, 100, generator=seeded()).numpy(), compute_uv=False)
    p = expected / expected.sum()
    assert ranks.effective_rank(sigma) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)
    assert ranks.effective_rank(sigma) > 80


def test_features_of_float32_give_the_ranks_of_float64():
    matrix = torch.randn(64, 300, generator=seeded())
    low, high = ranks.singular_values(matrix), ranks.singular_values(matrix.double())
    assert torch.equal(low, high)


# -- ranks -------------------------------------------------------------------------------------------------------

FLAT = torch.full((100,), 0.1, dtype=torch.float64)
MEASURES = [ranks.effective_rank, ranks.approximate_rank, ranks.l1_rank, ranks.numerical_rank, ranks.stable_rank]


def test_a_flat_spectrum_of_100_needs_exactly_99_for_99_percent():
    assert ranks.approximate_rank(FLAT, 0.99) == 99
    assert ranks.l1_rank(FLAT, 0.99) == 99


def test_the_whole_of_a_spectrum_is_never_more_than_it_has():
    assert ranks.approximate_rank(FLAT, 1.0) == 100
    assert ranks.l1_rank(FLAT, 1.0) == 100


@pytest.mark.parametrize("seed", range(5))
def test_shares_follow_their_definition(seed):
    sigma = torch.rand(37, generator=seeded(seed), dtype=torch.float64).sort(descending=True).values
    for measure, parts in ((ranks.approximate_rank, sigma**2), (ranks.l1_rank, sigma)):
        for prop in (0.3, 0.9, 0.99):
            by_definition = next(k for k in range(1, 38) if parts[:k].sum() >= prop * parts.sum())
            assert measure(sigma, prop) == by_definition


def test_closed_forms():
    assert ranks.effective_rank(FLAT) == pytest.approx(100, rel=1e-12)
    assert ranks.stable_rank(FLAT) == pytest.approx(100, rel=1e-12)
    two = ranks.singular_values(with_spectrum([3.0, 1.0], (20, 30)))
    p = 0.75
    assert ranks.effective_rank(two) == pytest.approx(math.exp(-p * math.log(p) - (1 - p) * math.log(1 - p)), rel=1e-5)
    assert ranks.stable_rank(two) == pytest.approx(10 / 9, rel=1e-9)
    assert ranks.numerical_rank(torch.tensor([1.0, 0.5, 0.01, 0.0099], dtype=torch.float64), 0.01) == 3


@pytest.mark.parametrize("measure", MEASURES)
def test_one_direction_is_rank_one_and_none_is_rank_zero(measure):
    one = ranks.singular_values(torch.outer(torch.arange(1.0, 9.0), torch.arange(1.0, 6.0)))
    assert measure(one) == pytest.approx(1, abs=1e-5)
    assert measure(ranks.singular_values(torch.zeros(8, 5))) == 0


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_features_that_are_no_numbers_have_rank_nan(measure, bad):
    assert math.isnan(measure(ranks.singular_values(torch.tensor([[1.0, bad], [2.0, 3.0]]))))


# -- gini and drops ----------------------------------------------------------------------------------------------


def test_gini_closed_forms():
    assert gini(torch.full((7,), 3.0)) == pytest.approx(0, abs=1e-12)
    assert gini(torch.tensor([0.0, 0.0, 0.0, 5.0])) == pytest.approx(3 / 4)
    assert gini(torch.tensor([1.0, 2.0, 3.0])) == pytest.approx(2 / 9)
    assert gini(torch.zeros(4)) == 0
    assert math.isnan(gini(torch.tensor([1.0, math.nan])))


@pytest.mark.parametrize("seed", range(3))
def test_gini_is_half_the_relative_mean_difference(seed):
    x = torch.rand(23, generator=seeded(seed), dtype=torch.float64)
    differences = (x[:, None] - x[None, :]).abs().mean()
    assert gini(x) == pytest.approx((differences / (2 * x.mean())).item(), rel=1e-12)


def test_gini_refuses_negative_values():
    with pytest.raises(ValueError, match="values >= 0, but the smallest here is -1"):
        gini(torch.tensor([2.0, -1.0]))


def test_a_single_late_drop():
    curve = torch.tensor([10.0, 10.0, 10.0, 1.0])
    assert rank_drops.drops(curve).tolist() == pytest.approx([0, 0, 0.9])
    assert rank_drops.drop_centroid(curve) == pytest.approx(3.0)
    assert rank_drops.drop_gini(curve) == pytest.approx(2 / 3)
    assert rank_drops.aurc(curve) == pytest.approx((10 + 10 + 5.5) / 30)


def test_a_rise_is_no_drop_and_keeps_the_gini_within_its_range():
    curve = torch.tensor([5.0, 9.0, 3.0, 7.0, 1.0])
    assert rank_drops.drops(curve).min() >= 0
    assert 0 <= rank_drops.drop_gini(curve) <= 3 / 4


def test_where_nothing_drops():
    flat = torch.tensor([4.0, 4.0, 4.0])
    assert rank_drops.drop_gini(flat) == 0
    assert math.isnan(rank_drops.drop_centroid(flat))
    assert rank_drops.aurc(flat) == pytest.approx(1)
    assert math.isnan(rank_drops.aurc(torch.tensor([4.0])))
    assert rank_drops.drops(torch.tensor([0.0, 0.0])).tolist() == [0]


# -- units -------------------------------------------------------------------------------------------------------


def test_dead_and_dormant_units_of_a_linear_layer():
    outputs = torch.tensor([[0.0, 1.0, 0.001, 4.0], [0.0, 3.0, 0.001, 0.0]])
    layer = units.activity(outputs, axis=-1)
    assert layer.mean_abs.tolist() == pytest.approx([0, 2, 0.001, 2])
    assert units.dead(layer).tolist() == [True, False, False, False]
    assert units.dormant(layer, tau=0.025).tolist() == [True, False, True, False]
    assert units.dormant(layer, tau=0.0).tolist() == [True, False, False, False]


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_dormancy_is_relative_to_the_layer(scale):
    outputs = torch.tensor([[1.0, 0.01, 0.1]]) * scale
    assert units.dormant(units.activity(outputs, -1), tau=0.05).tolist() == [False, True, False]


def test_a_channel_is_one_unit_however_many_positions_it_has():
    outputs = torch.zeros(2, 3, 4, 4)
    outputs[1, 0, 2, 2] = 1.0  # one position of one example is enough to be alive
    outputs[:, 2] = 5.0
    layer = units.activity(outputs, axis=1)
    assert units.dead(layer).tolist() == [False, True, False]
    assert layer.mean_abs.tolist() == pytest.approx([1 / 32, 0, 5])


def test_batches_add_up_to_the_whole():
    outputs = torch.randn(10, 6, generator=seeded()).relu()
    whole = units.activity(outputs, -1, outputs > 1)
    parts = units.activity(outputs[:7], -1, outputs[:7] > 1) | units.activity(outputs[7:], -1, outputs[7:] > 1)
    torch.testing.assert_close(whole.mean_abs, parts.mean_abs)
    assert torch.equal(whole.ever_active, parts.ever_active)
    assert torch.equal(whole.always_saturated, parts.always_saturated)


def test_saturation_needs_every_example_at_an_asymptote():
    outputs = torch.tensor([[0.999, -0.999, 0.0], [-0.999, -0.999, 0.999]])
    layer = units.activity(outputs, -1, units.is_saturated("tanh", outputs, 0.01))
    assert layer.always_saturated.tolist() == [True, True, False]
    assert units.is_saturated("sigmoid", torch.tensor([0.001, 0.5, 0.999]), 0.01).tolist() == [True, False, True]
    assert units.is_saturated("relu", outputs, 0.01) is None


# -- weights -----------------------------------------------------------------------------------------------------


def test_weights_are_taken_together_over_entries_not_over_tensors():
    tensors = [torch.tensor([[1.0, -1.0], [1.0, -1.0]]), torch.tensor([[4.0]])]
    assert weights.mean_abs(tensors) == pytest.approx(8 / 5)
    assert weights.norm(tensors) == pytest.approx(math.sqrt(20))
    assert weights.distance({"a": torch.tensor([3.0, 4.0])}, {"a": torch.zeros(2), "unused": torch.ones(1)}) == pytest.approx(5)


# -- features ----------------------------------------------------------------------------------------------------


class Functional(nn.Module):
    """Calls its activations as functions and methods, overwrites one of them, and reuses a module."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(1, 2, 3), nn.Linear(8, 5), nn.Linear(5, 5)
        self.shared = nn.Tanh()

    def forward(self, x):
        x = torch.relu_(self.first(x))
        x += 100.0
        x = self.shared(self.second(x.flatten(1)))
        return self.shared(self.third(x)).sigmoid()


def as_they_were(features: Features) -> Features:
    return Features(features.layer, features.function, features.outputs.clone(), features.unit_axis)


def test_activations_are_seen_however_they_are_called():
    net, inputs = Functional(), torch.randn(3, 1, 4, 4, generator=seeded())
    found = of_each_layer(net, inputs, as_they_were)
    assert list(found) == ["relu", "shared", "shared_2"], "the sigmoid is what the net returns, no hidden layer"
    assert [f.function for f in found.values()] == ["relu", "tanh", "tanh"]
    assert [f.unit_axis for f in found.values()] == [1, -1, -1]
    torch.testing.assert_close(found["relu"].outputs, net.first(inputs).relu())
    assert found["relu"].as_matrix().shape == (3, 8)


def test_modules_give_their_names_once():
    block = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.GELU())
    net = nn.Sequential(block, nn.Linear(6, 2))
    inputs = torch.randn(5, 4, generator=seeded())
    found = of_each_layer(net, inputs, as_they_were)
    assert list(found) == ["0.1", "0.3"]
    torch.testing.assert_close(found["0.3"].outputs, block(inputs))


def test_a_net_without_activations_shows_its_hidden_layers():
    net = nn.Sequential(nn.Linear(4, 6), nn.Identity(), nn.Linear(6, 3), nn.Linear(3, 2))
    found = of_each_layer(net, torch.randn(5, 4, generator=seeded()), lambda features: features.outputs.shape[1])
    assert found == {"0": 6, "2": 3}


def test_looking_leaves_no_hook_behind_also_when_the_net_fails():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(5, 2))
    with pytest.raises(RuntimeError):
        of_each_layer(net, torch.randn(5, 4), as_they_were)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_a_transformer_block_in_eval_mode_is_seen_too():
    net = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 2)).eval()
    found = of_each_layer(net, torch.randn(3, 5, 8, generator=seeded()), as_they_were)
    assert [(f.function, f.outputs.shape[-1], f.unit_axis) for f in found.values()] == [("relu", 16, -1)]
