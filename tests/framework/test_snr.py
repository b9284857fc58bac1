"""Self-normalised resets against their formulas written out by hand, and against the faults of published code."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from taskshift.learners.snr import SelfNormalizedResets
from taskshift.shifts.task import Batch
from tests.framework.units_by_hand import GROUPS, SIZES, Rows, assert_follows_by_hand, begin_anew, standing_still, training_with


class ByHand:
    """§ the formulas, example by example."""

    def __init__(self, eta, window, expansion, shortest, longest):
        self.eta, self.window, self.expansion, self.shortest, self.longest = eta, window, expansion, shortest, longest
        self.age = {group: [0] * size for group, size in SIZES.items()}
        self.gaps = {group: [[] for _ in range(size)] for group, size in SIZES.items()}
        self.threshold = {group: [longest] * size for group, size in SIZES.items()}
        self.rows, self.waited = Rows("snr"), 0

    def edge(self, gap):
        """The upper end of the bin in which a gap lies."""
        return min(
            2 ** ((math.floor(4 * math.log2(gap) + 1e-3) + 1) / 4),
            2 ** ((math.floor(4 * math.log2(self.longest) + 1e-3) + 1) / 4),
        )

    def __call__(self, net, slots, values, inputs, at):
        count = 0
        for group, (_, _, _, readers) in GROUPS.items():
            age, gaps, threshold = self.age[group], self.gaps[group], self.threshold[group]
            for unit in range(SIZES[group]):
                for example in range(len(inputs)):
                    age[unit] += 1
                    if any(values[name][example, unit] > 0 for name in readers):
                        gaps[unit].append(age[unit])
                        age[unit] = 0
            due = sorted((threshold[unit] - age[unit], unit) for unit in range(SIZES[group]) if age[unit] >= threshold[unit])
            units = [unit for _, unit in due[: math.ceil(SIZES[group] / 64)]]
            self.waited += len(due) - len(units)
            begin_anew(group, units, net, slots, self.rows)
            count += len(units)
            for unit in units:
                gaps[unit].append(age[unit])
                age[unit] = 0
            if (at + 1) % self.window == 0:
                for unit in range(SIZES[group]):
                    if gaps[unit]:
                        ends = sorted(map(self.edge, gaps[unit]))
                        quantile = next(end for rank, end in enumerate(ends) if (rank + 1) >= (1 - self.eta) * len(ends))
                        grown = quantile if quantile < threshold[unit] else self.expansion * threshold[unit]
                        threshold[unit] = min(max(grown, self.shortest), self.longest)
                    gaps[unit] = []
        return {"replaced": count}


@pytest.mark.parametrize(
    ("optimizer", "size"), [(torch.optim.Adam, 7), (partial(torch.optim.SGD, lr=0.1, momentum=0.9), 2)], ids=["adam", "sgd"]
)
def test_a_step_equals_the_formulas_written_out(optimizer, size):
    given = (0.3, 3, 2.0, 2, 9)
    by_hand = ByHand(*given)
    told, ours = assert_follows_by_hand("snr", SelfNormalizedResets(*given), by_hand, optimizer=optimizer, count=30, size=size)
    counts = [numbers["replaced"] for numbers in told]
    assert 0 in counts
    assert sum(counts) > 5
    assert by_hand.waited > 0
    for group in GROUPS:
        memory = ours.state["parts"]["snr"][group]
        np.testing.assert_allclose(memory["threshold"], by_hand.threshold[group], rtol=1e-12)
        np.testing.assert_array_equal(memory["age"], by_hand.age[group])
    assert len(set(by_hand.threshold["a"])) > 1


# -- faults of published code ---------------------------------------------------------------------------------------


def one_layer(seed):
    """Two units: one fires where the input's first entry is above 0, the other where the second is."""
    torch.manual_seed(seed % 2**31)
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2))
        net[0].bias.zero_()
    return net


def after(part, *batches, optimizer=standing_still):
    """The training after batches in which the units fire as these lists of pairs say, and how many began anew."""
    one, counts = training_with("snr", part, make=one_layer, optimizer=optimizer, shape=(2,)), []
    for at, pairs in enumerate(batches):
        inputs = torch.tensor(pairs, dtype=torch.float64) - 0.5
        batch = Batch(inputs, torch.zeros(len(inputs), dtype=torch.int64))
        one.state, told = one.learner.step(one.state, batch, F.cross_entropy, one.draws.at(at, one.state["taken"]))
        counts.append(int(told.numbers["snr/replaced"]))
    return one, counts


def threshold(one):
    return one.state["parts"]["snr"]["0"]["threshold"].tolist()


def test_a_unit_silent_all_the_while_keeps_its_threshold():
    """The reference divides by no gaps at all, gets NaN, and takes the shortest threshold there is."""
    one, counts = after(SelfNormalizedResets(0.1, window=2, shortest=3, longest=64), [(1, 0)] * 5, [(1, 0)] * 5)
    assert threshold(one) == [3, 64]
    assert counts == [0, 0]


def test_firing_again_at_once_is_a_time_between_firings():
    """The reference counts silences alone, so that a unit that is rarely silent is allowed a long one."""
    pairs = [(1, 1)] * 18 + [(0, 1)] * 9 + [(1, 1)]
    one, _ = after(SelfNormalizedResets(0.1, window=1, shortest=1, longest=64), pairs)
    assert threshold(one)[0] == pytest.approx(2**0.25)  # 18 gaps of 1, one of 10


def test_times_are_counted_by_example_also_within_a_batch():
    """The reference counts whole batches: a unit that fires on one example of a batch has not been silent in it."""
    pairs = [(1, 1), (0, 1), (0, 1), (0, 1), (1, 1), (0, 1)]
    one, _ = after(SelfNormalizedResets(0.5, window=9, shortest=1, longest=64), pairs)
    memory = one.state["parts"]["snr"]["0"]
    assert memory["age"].tolist() == [1, 0]
    assert {at: int(n) for at, n in enumerate(memory["gaps"][0]) if n} == {0: 1, 8: 1}  # gaps of 1 and 4 = 2^(8/4)
    apart = [
        one.state["parts"]["snr"]["0"]
        for one, _ in [after(SelfNormalizedResets(0.5, window=9, shortest=1, longest=64), *([pair] for pair in pairs))]
    ]
    for key in ("age", "gaps"):
        assert torch.equal(apart[0][key], memory[key])


def test_new_units_are_read_by_nobody_and_forgotten():
    """A public port sets the outgoing weights of a copy to zero; the reference keeps Adam's count of steps."""
    one, counts = after(
        SelfNormalizedResets(0.5, window=99, shortest=1, longest=4),
        [(1, 0)] * 3,
        [(1, 0)] * 3,
        optimizer=partial(torch.optim.Adam, lr=0.0),
    )
    assert counts == [0, 1]
    assert one.state["net"]["2.weight"].abs().sum(dim=0).eq(0).tolist() == [False, True]
    assert one.state["slots"]["step"]["2.weight"][0].tolist() == [2, 0]


def test_a_unit_begins_with_no_silence_behind_it():
    one, counts = after(SelfNormalizedResets(0.5, window=99, shortest=1, longest=4), *[[(0, 0)] * 2] * 6)
    assert counts == [0, 1, 1, 1, 1, 1]  # one after the other, every fourth example
    assert one.state["parts"]["snr"]["0"]["age"].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"eta": 0.0}, "eta is 0.0; the share of silences that are too long lies between 0 and 1"),
        ({"window": 0}, "window is 0; a number of steps, 1 or more, is expected"),
        ({"expansion": 0.5}, "expansion is 0.5; thresholds grow by it, and it is 1 or more"),
        ({"shortest": 9, "longest": 8}, "shortest is 9 and longest 8; 1 ≤ shortest ≤ longest are numbers of examples"),
    ],
)
def test_what_makes_no_sense_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        SelfNormalizedResets(**given)
