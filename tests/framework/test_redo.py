"""ReDo against its formulas written out by hand, and against the faults of published code."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from taskshift.learners.cbp import ContinualBackprop
from taskshift.learners.rank_restoring import RankRestoring
from taskshift.learners.redo import ReDo
from taskshift.shifts.task import Batch
from tests.framework.units_by_hand import GROUPS, SIZES, Rows, assert_follows_by_hand, begin_anew, standing_still, training_with


class ByHand:
    """§ the formulas: scores over all examples since the last time, at each reader of the units."""

    def __init__(self, tau, every):
        self.tau, self.every, self.rows = tau, every, Rows("redo")
        self.sums = {group: np.zeros(size) for group, size in SIZES.items()}

    def __call__(self, net, slots, values, inputs, at):
        for group, (_, _, _, readers) in GROUPS.items():
            for unit in range(SIZES[group]):
                means = [np.mean([abs(h) for h in values[name][:, unit]]) for name in readers]
                self.sums[group][unit] += len(inputs) * sum(means) / len(means)
        if (at + 1) % self.every:
            return {}
        count = 0
        for group, sums in self.sums.items():
            units = [unit for unit, value in enumerate(sums) if value / sums.mean() <= self.tau]
            begin_anew(group, units, net, slots, self.rows)
            count += len(units)
            self.sums[group] = np.zeros_like(sums)
        return {"replaced": count}


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, partial(torch.optim.SGD, lr=0.1, momentum=0.9)])
def test_a_step_equals_the_formulas_written_out(optimizer):
    told, _ = assert_follows_by_hand("redo", ReDo(0.8, every=4), ByHand(0.8, 4), optimizer=optimizer, count=17)
    counts = [numbers["replaced"] for numbers in told if numbers]
    assert len(counts) == 4
    assert sum(counts) >= 5


def test_where_no_unit_is_dormant_it_learns_as_without():
    told, _ = assert_follows_by_hand("redo", ReDo(0.0, every=2), ByHand(0.0, 2), optimizer=torch.optim.Adam, count=6)
    assert [numbers.get("replaced") for numbers in told] == [None, 0, None, 0, None, 0]


# -- faults of published code ---------------------------------------------------------------------------------------


def two_layers(seed):
    """Four units: 0 is dead, 1 gives a hundredth of what 2 and 3 give."""
    torch.manual_seed(seed % 2**31)
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[-1, 0], [0.01, 0], [1, 0], [1, 0]], dtype=torch.float64))
        net[0].bias.zero_()
    return net


def after_looks(part, *batches, optimizer=standing_still):
    one = training_with("redo", part, make=two_layers, optimizer=optimizer, shape=(2,))
    for at, inputs in enumerate(batches):
        batch = Batch(inputs, torch.zeros(len(inputs), dtype=torch.int64))
        acting = one.learner.acting(at)
        one.state, told = one.learner.step(one.state, batch, F.cross_entropy, one.draws.at(at, one.state["taken"]), acting=acting)
    one.hide()
    return one, told


def ones(count=3):
    return torch.ones(count, 2, dtype=torch.float64)


def test_new_units_are_read_by_nobody():
    """Two public codes set the outgoing weights of a copy to zero, and new units disturb what was learnt."""
    one, told = after_looks(ReDo(0.05, every=1), ones())
    assert told.numbers["redo/replaced"] == 2
    assert one.state["net"]["2.weight"][:, :2].abs().max() == 0
    assert one.state["net"]["2.weight"][:, 2:].abs().min() > 0
    before = two_layers(3)
    with torch.no_grad():
        before[2].weight[:, 1] = 0  # the other one gave nothing
    torch.testing.assert_close(one.net(ones()), before(ones()), rtol=1e-12, atol=0)


def test_a_score_is_a_share_of_the_layers_mean():
    """Divided by the unit's own mean, as one code has it, every unit that lives has the score 1."""
    for tau, expected in ((0.0, [0]), (0.019, [0]), (0.021, [0, 1])):  # 0.01 of a mean of 0.5025
        one, _ = after_looks(ReDo(tau, every=1), ones())
        gone = one.state["net"]["2.weight"].abs().sum(dim=0) == 0
        assert gone.nonzero().flatten().tolist() == expected, tau


def test_a_score_is_of_all_examples_since_the_last_time():
    """Several codes look at the last batch alone, and take units for dead that it happens not to move."""
    one, told = after_looks(ReDo(0.0, every=2), ones(), -ones())
    assert told.numbers["redo/replaced"] == 0
    one, told = after_looks(ReDo(0.0, every=2), ones(), ones())
    assert told.numbers["redo/replaced"] == 1


def test_an_example_counts_once_whatever_its_batch():
    one, _ = after_looks(ReDo(0.0, every=3), ones(5), -ones(1))
    activity = one.state["parts"]["redo"]["0"]
    torch.testing.assert_close(activity, torch.tensor([1.0, 0.05, 5.0, 5.0], dtype=torch.float64), rtol=1e-12, atol=0)


def test_the_optimizer_forgets_biases_and_steps_as_well():
    """The reference code keeps the moments of a new unit's bias, and the count of steps."""
    one, told = after_looks(ReDo(0.05, every=3), ones(), ones(), ones(), optimizer=partial(torch.optim.Adam, lr=0.0))
    assert told.numbers["redo/replaced"] == 2
    for of in one.state["slots"].values():
        assert of["0.bias"][1] == of["0.weight"][1].abs().max() == of["2.weight"][:, 1].abs().max() == 0
    assert one.state["slots"]["step"]["0.bias"].tolist() == [0, 0, 3, 3]
    assert one.state["slots"]["step"]["2.bias"].tolist() == [3, 3, 3]


def test_new_weights_are_drawn_as_the_net_was():
    """The reference code draws them as Xavier, whatever the net."""
    one, _ = after_looks(ReDo(0.05, every=1), ones())
    assert one.state["net"]["0.weight"][0].tolist() == [-1, 0]  # this net's own constructor draws nothing else
    assert one.state["net"]["0.weight"][1].tolist() == [0.01, 0]


@pytest.mark.parametrize(
    "part",
    [
        lambda: ReDo(10.0, every=1),
        lambda: ContinualBackprop(0.5, 0, transfer_bias=True),
        lambda: RankRestoring(ContinualBackprop(0.5, 0)),
    ],
)
def test_frozen_parameters_stay_as_they_are(part):
    def frozen(seed):
        torch.manual_seed(seed % 2**31)
        net = nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 3)).double()
        for one in (net[0].bias, net[1].weight, net[1].bias, net[3].bias):
            one.data.fill_(0.5)
            one.requires_grad_(False)
        return net

    one = training_with("redo", part(), make=frozen, optimizer=partial(torch.optim.Adam, lr=0.01), shape=(2,))
    before = {name: tensor.clone() for name, tensor in one.state["net"].items()}
    batch = Batch(torch.randn(5, 2, dtype=torch.float64), torch.zeros(5, dtype=torch.int64))
    for at in range(2):
        one.state, told = one.learner.step(one.state, batch, F.cross_entropy, one.draws.at(at, one.state["taken"]))
    assert told.numbers["redo/replaced"] > 0
    changed = {name for name, tensor in one.state["net"].items() if not torch.equal(tensor, before[name])}
    assert changed == {"0.weight", "3.weight"}


def test_a_layer_without_any_activity_is_dormant_as_a_whole():
    one, told = after_looks(ReDo(0.0, every=1), -ones() * torch.tensor([0.0, 1.0]))
    assert told.numbers["redo/replaced"] == 4
    assert one.state["net"]["2.weight"].abs().max() == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tau": -0.1}, "tau is -0.1; it is a share of a layer's mean activity, 0 or more"),
        ({"every": 0}, "every is 0; a number of steps, 1 or more, is expected"),
    ],
)
def test_what_makes_no_sense_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        ReDo(**given)
