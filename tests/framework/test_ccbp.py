"""Continuous continual backprop against its formulas written out by hand."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from taskshift.learners.ccbp import ContinuousContinualBackprop
from tests.framework.units_by_hand import GROUPS, SIZES, Rows, batches, made, training_with

TRAINED = dict(made(0).named_parameters())


def mixed(net, utilities, rows, *, rate, steepness):
    """Change net and utilities in place, unit by unit; the sum of shares."""
    total = 0.0
    for group, (makers, zeros, ones, readers) in GROUPS.items():
        shares = [rate / (1 + math.exp(steepness * (u - 1))) for u in utilities[group]]
        for unit, share in enumerate(shares):
            for name in makers:
                net[name][unit] += share * (rows.next(name) - net[name][unit])
            for name in (name for name in (*zeros, *ones) if name in TRAINED):
                net[name][unit] += share * ((name in ones) - net[name][unit])
            utilities[group][unit] += share * (1 - utilities[group][unit])
            total += share
        for unit, share in enumerate(shares):
            for name in readers:
                net[name][:, unit] *= 1 - share
    return total


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, partial(torch.optim.SGD, lr=0.1, momentum=0.9)])
def test_a_step_equals_the_formulas_written_out(optimizer):
    given = {"rate": 0.4, "steepness": 3.0}
    ours, plain = (
        training_with("ccbp", part, optimizer=optimizer)
        for part in (ContinuousContinualBackprop(every=3, decay=0.8, **given), None)
    )
    utilities, rows = {group: np.ones(size) for group, size in SIZES.items()}, Rows("ccbp")
    for at, batch in enumerate(batches(9)):
        twin = made(0)
        twin.load_state_dict(ours.state["net"])
        F.cross_entropy(twin(batch.inputs), batch.targets).backward()
        for group, (makers, *_) in GROUPS.items():
            slopes = np.concatenate([dict(twin.named_parameters())[name].grad.numpy() for name in makers], axis=1)
            size = np.abs(slopes).mean(axis=1)
            utilities[group] = 0.8 * utilities[group] + 0.2 * size / size.mean()
        stepped, _ = plain.learner.step(
            {**plain.state, **{key: ours.state[key] for key in ("net", "slots")}}, batch, F.cross_entropy
        )
        net = {key: tensor.numpy().copy() for key, tensor in stepped["net"].items()}
        draws = ours.draws.at(at, ours.state["taken"])
        ours.state, told = ours.learner.step(ours.state, batch, F.cross_entropy, draws, acting=ours.learner.acting(at))
        if (at + 1) % 3 == 0:
            assert float(told.numbers["ccbp/replaced"]) == pytest.approx(mixed(net, utilities, rows, **given), rel=1e-10)
        for name, value in net.items():
            np.testing.assert_allclose(ours.state["net"][name], value, rtol=1e-10, atol=1e-12, err_msg=f"{at} {name}")
        for group, value in utilities.items():
            np.testing.assert_allclose(ours.state["parts"]["ccbp"][group], value, rtol=1e-10)
        for slot, of in stepped["slots"].items():
            for name, value in of.items():
                assert torch.equal(ours.state["slots"][slot][name], value)


def test_at_rate_0_it_learns_as_without():
    ours, plain = (
        training_with("ccbp", part, optimizer=torch.optim.Adam) for part in (ContinuousContinualBackprop(rate=0.0, every=1), None)
    )
    for batch in batches(3):
        for one in (ours, plain):
            one.state, _ = one.learner.step(one.state, batch, F.cross_entropy, one.draws.at(0, one.state["taken"]))
    for name, tensor in plain.state["net"].items():
        assert torch.equal(tensor, ours.state["net"][name]), name


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rate": 1.5}, "rate is 1.5; the share of a unit that becomes new lies between 0 and 1"),
        ({"every": 0}, "every is 0; a number of steps, 1 or more, is expected"),
        ({"decay": 1.0}, "decay is 1.0; running means forget by it, from 0 to below 1"),
        ({"steepness": -1}, "steepness is -1; it is 0, where all units are treated alike, or more"),
    ],
)
def test_what_makes_no_sense_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        ContinuousContinualBackprop(**given)
