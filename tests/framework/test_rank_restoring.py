"""The rank-restoring family against its definition in NumPy, and against the faults of the code it comes from."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from taskshift.learners.cbp import ContinualBackprop
from taskshift.learners.learner import Learner
from taskshift.learners.rank_restoring import RankRestoring, gain
from taskshift.nets.convnet import ConvNet
from taskshift.randomness import seed_from
from taskshift.shifts.task import Batch
from taskshift.training import Training
from tests.framework.units_by_hand import SEED, standing_still, training

WIDTH, INPUTS = 5, 8


def wide_input(seed):
    torch.manual_seed(seed % 2**31)
    return nn.Sequential(nn.Linear(INPUTS, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 3)).double()


def wide_input_draw(block):
    """What the net's constructor draws for its new units, a block after another."""
    return wide_input(seed_from(SEED, "fresh", "cbp", block)).state_dict()["0.weight"].numpy()


def part(rate=0.45, maturity=2, **given):
    return RankRestoring(ContinualBackprop(rate, maturity, 0.9), **given)


def followed(make, rank_restoring, inputs, *, optimizer=standing_still):
    """(net before, net after, which units are new) of each step on these inputs [steps][m, …]."""
    one = training(make, rank_restoring, optimizer=optimizer, shape=tuple(inputs[0].shape[1:]))
    plain = training(make, None, optimizer=optimizer, shape=tuple(inputs[0].shape[1:]))
    for at, x in enumerate(inputs):
        batch = Batch(x, torch.arange(len(x)) % 3)
        before = plain.learner.step({**plain.state, **{key: one.state[key] for key in ("net", "slots")}}, batch, F.cross_entropy)[
            0
        ]["net"]
        one.state, told = one.learner.step(one.state, batch, F.cross_entropy, one.draws.at(at, one.state["taken"]))
        new = one.state["parts"]["cbp"]["units"]["0"]["age"] == 0
        assert told.numbers["cbp/replaced"] >= int(new.sum())
        yield {k: v.numpy() for k, v in before.items()}, {k: v.numpy() for k, v in one.state["net"].items()}, new.numpy()


def correlated(steps, seed=0, size=40, mean=0.0):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(INPUTS, INPUTS))
    return [torch.from_numpy(rng.normal(size=(size, INPUTS)) @ mix.T + mean) for _ in range(steps)]


def averages(inputs, decay):
    """Mean and second moment with weights decayᵏ, which sum to 1."""
    weights = np.array([decay**k for k in range(len(inputs))][::-1])
    weights /= weights.sum()
    mean = sum(w * x.numpy().mean(0) for w, x in zip(weights, inputs, strict=True))
    return mean, sum(w * x.numpy().T @ x.numpy() / len(x) for w, x in zip(weights, inputs, strict=True))


@pytest.mark.parametrize("energy", ["budget", "unit"])
@pytest.mark.parametrize("metric", ["covariance", "second_moment"])
@pytest.mark.parametrize("diagonal", [False, True])
def test_new_rows_are_their_draws_without_what_the_kept_rows_have(energy, metric, diagonal):
    """By least squares in whitened coordinates, one new unit after the other, with energies and biases by the formulas."""
    inputs, seen = correlated(7, mean=1.0), 0
    steps = followed(wide_input, part(energy=energy, metric=metric, diagonal=diagonal, input_decay=0.7, longest=1e9), inputs)
    draws = np.concatenate([wide_input_draw(block) for block in range(4)])
    for at, (before, after, new) in enumerate(steps):
        mean, second = averages(inputs[: at + 1], 0.7)
        sigma = second - np.outer(mean, mean) if metric == "covariance" else second
        sigma = np.diag(np.diag(sigma)) if diagonal else sigma
        root = np.linalg.cholesky(sigma)
        kept = before["0.weight"][~new]
        np.testing.assert_array_equal(after["0.weight"][~new], kept)
        np.testing.assert_array_equal(after["0.bias"][~new], before["0.bias"][~new])
        due = np.trace(sigma) / INPUTS / 0.5
        left = WIDTH * due - sum(w @ sigma @ w for w in kept)
        basis, rows = list(kept), after["0.weight"][new]
        for w, b in zip(rows, after["0.bias"][new], strict=True):
            u = draws[seen]
            seen += 1
            span = np.stack(basis) @ root  # rows, whitened
            rest = u @ root - span.T @ np.linalg.lstsq(span.T, u @ root, rcond=None)[0]
            expected = np.linalg.solve(root.T, rest / np.linalg.norm(rest))
            q = 1.0 if energy == "unit" else max(0.1 * due, min(due, left / len(rows)))
            np.testing.assert_allclose(w, expected * np.sqrt(q), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(b, -w @ mean, rtol=1e-9)
            basis.append(w)
        gram = rows @ sigma @ np.concatenate([kept, rows]).T
        scale = np.sqrt(
            np.outer(
                np.diag(rows @ sigma @ rows.T), np.diag(np.concatenate([kept, rows]) @ sigma @ np.concatenate([kept, rows]).T)
            )
        )
        apart = np.abs(gram / scale)
        np.fill_diagonal(apart[:, len(kept) :], 0)
        assert apart.size == 0 or apart.max() < 1e-6
        assert np.abs(after["2.weight"][:, new]).sum() == 0
    assert seen >= 6


def narrow_input(seed):
    """More units than inputs: those that are kept span all that the inputs do."""
    torch.manual_seed(seed % 2**31)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def test_where_nothing_is_left_new_rows_go_where_the_others_are_shortest():
    inputs = [x[:, :3] for x in correlated(4)]
    for before, after, new in followed(narrow_input, part(0.17, maturity=2, longest=1e9), inputs):
        if not new.any():
            continue
        assert new.sum() == 1
        mean, second = averages(inputs[:3], 0.99)
        sigma = second - np.outer(mean, mean)
        root = np.linalg.cholesky(sigma)
        whitened = before["0.weight"][~new] @ root
        values, vectors = np.linalg.eigh(whitened.T @ whitened)
        row = after["0.weight"][new][0] @ root
        assert abs(row @ vectors[:, 0]) / np.linalg.norm(row) > 0.99
        break
    else:
        pytest.fail("no unit was replaced")


def test_a_convolution_sees_patches():
    def make(seed):
        torch.manual_seed(seed % 2**31)
        return nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)).double()

    rng = torch.Generator().manual_seed(0)
    inputs = [torch.randn(9, 2, 5, 5, generator=rng, dtype=torch.float64).cumsum(3) for _ in range(3)]
    *_, (before, after, new) = followed(make, part(0.3, maturity=2, input_decay=0.0), inputs)
    padded = np.pad(inputs[-1].numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    patches = np.stack([padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].reshape(9, -1) for i in range(3) for j in range(3)])
    sigma = np.cov(patches.reshape(-1, 18).T, bias=True)
    rows = after["0.weight"].reshape(4, 18)
    assert new.sum() == 1
    assert np.abs(rows[new] @ sigma @ rows[~new].T).max() < 1e-9 * np.abs(rows @ sigma @ rows.T).max()
    np.testing.assert_allclose(after["0.bias"][new], -rows[new] @ patches.reshape(-1, 18).mean(0), rtol=1e-9)


# -- faults of the code it comes from ---------------------------------------------------------------------------------


def test_averages_do_not_begin_at_zero():
    """There the first unit gets a hundredth of its energy, and averages move in steps with replacements alone."""
    inputs = correlated(3, size=400)
    *_, (before, after, new) = followed(wide_input, part(energy="unit", input_decay=0.999, longest=1e9), inputs)
    mean, second = averages(inputs, 0.999)
    sigma = second - np.outer(mean, mean)
    assert new.sum() == 2
    np.testing.assert_allclose([w @ sigma @ w for w in after["0.weight"][new]], [1, 1], rtol=1e-6)


@pytest.mark.parametrize("energy", ["budget", "unit"])
def test_directions_that_the_data_never_move_do_not_blow_up(energy):
    """Grey images in three channels: patches of 75 entries move in 25 directions. There rows become NaN, or far too long.

    Nor are new units deaf to all that there is.
    """

    def make(seed):
        torch.manual_seed(seed % 2**31)
        return ConvNet((3, 24, 24), 3, channels=(32, 3, 4), width=5)

    rng = torch.Generator().manual_seed(0)
    inputs = [torch.randn(8, 1, 24, 24, generator=rng).expand(-1, 3, -1, -1).contiguous() for _ in range(20)]
    learner = Learner(make(SEED), partial(torch.optim.SGD, lr=0.01), interventions={"cbp": part(0.1, maturity=2, energy=energy)})
    one = Training(learner, Batch(inputs[0][:2], torch.arange(2)), seed=SEED, make_net=make)
    count, drawn = 0.0, max(w.flatten(1).norm(dim=1).max() for n, w in make(0).state_dict().items() if w.dim() == 4)
    for at, x in enumerate(inputs):
        draws = one.draws.at(at, one.state["taken"])
        one.state, told = one.learner.step(one.state, Batch(x, torch.arange(8) % 3), F.cross_entropy, draws)
        count += float(told.numbers["cbp/replaced"])
        new = one.state["parts"]["cbp"]["units"]["features.conv_1"]["age"] == 0
        sizes = F.conv2d(x, one.state["net"]["features.conv_1.weight"]).std(dim=(0, 2, 3))
        assert not new.any() or sizes[new].min() > 0.1 * sizes[~new].median()
    assert count > 30
    for name, weight in one.state["net"].items():
        assert weight.isfinite().all(), name
        if weight.dim() == 4:
            assert weight.flatten(1).norm(dim=1).max() < 2.2 * drawn, name


def test_a_unit_over_the_budget_is_not_born_dead():
    """There it gets a millionth of its due."""

    def make(seed):
        net = wide_input(seed)
        with torch.no_grad():
            net[0].weight.mul_(1 if seed != SEED else 30)  # what is kept has used up the energy
        return net

    inputs = correlated(3)
    *_, (before, after, new) = followed(make, part(input_decay=0.0, longest=1e9), inputs)
    sigma = np.cov(inputs[-1].numpy().T, bias=True)
    due = np.trace(sigma) / INPUTS / 0.5
    assert new.sum() == 2
    np.testing.assert_allclose([w @ sigma @ w for w in after["0.weight"][new]], [0.1 * due] * 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("relu", 0.5), ("tanh", 0.394), ("sigmoid", 0.293), ("selu", 1.0), ("gelu", 0.425), ("silu", 0.356), ("elu", 0.645)],
)
def test_gains_are_those_of_the_activation(activation, expected):
    """There they are 1 for tanh, sigmoid and ELU, 0.5 for SELU, GELU and SiLU."""
    assert gain(activation) == pytest.approx(expected, abs=6e-4)
    assert gain("") == gain("maxout") == 1


def test_transferred_bias_is_not_zero():
    """There the mean activity is set to zero before it is read."""
    batch = torch.ones(4, INPUTS, dtype=torch.float64)
    with_bias = RankRestoring(ContinualBackprop(0.45, 2, 0.9, transfer_bias=True))
    *_, (before, after, new) = followed(wide_input, with_bias, [batch] * 3)
    active = np.maximum(before["0.weight"] @ np.ones(INPUTS) + before["0.bias"], 0)
    np.testing.assert_allclose(after["2.bias"], before["2.bias"] + before_outgoing(after, new) @ active[new], rtol=1e-9)


def before_outgoing(after, new):
    return wide_input(SEED).state_dict()["2.weight"].numpy()[:, new]


def test_inputs_that_never_vary_leave_units_as_drawn():
    *_, (before, after, new) = followed(wide_input, part(), [torch.zeros(4, INPUTS, dtype=torch.float64)] * 3)
    assert new.sum() == 2
    np.testing.assert_array_equal(after["0.weight"][new], wide_input_draw(0)[:2])
    assert np.isfinite(after["0.bias"]).all()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"energy": "all"}, "energy='all' is not known; choose one of budget, unit"),
        ({"metric": "l2"}, "metric='l2' is not known; choose one of covariance, second_moment"),
        ({"input_decay": 1.0}, "input_decay is 1.0; running means forget by it, from 0 to below 1"),
        ({"least_energy": 2}, "least_energy is 2; it is a share of a unit's due, from 0 to 1"),
        ({"longest": 0}, "longest is 0; a new row's length is limited to so many times its draw's, above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        part(**given)
