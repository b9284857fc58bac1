"""Units made as new in nets where several layers add up to a stream."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from taskshift.learners.cbp import ContinualBackprop
from taskshift.shifts.task import Batch
from tests.framework.units_by_hand import training_with


class Stream(nn.Module):
    """Units that `first` and `writes` make together, and within the branch others that `writes` reads."""

    def __init__(self, *, bias):
        super().__init__()
        self.first, self.alone, self.writes = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 6, bias=bias)
        self.norm = nn.Identity() if bias else nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, inputs):
        stream = self.first(inputs)
        return self.head(stream + self.norm(self.writes(torch.sigmoid(self.alone(stream)))))


@pytest.mark.parametrize(("bias", "kept_in"), [(True, "writes.bias"), (False, "norm.running_mean")])
@pytest.mark.parametrize("transfers", [True, False])
def test_a_new_unit_of_a_stream_keeps_nothing_of_what_it_was_given(bias, kept_in, transfers):
    """The branch's units begin anew after the stream's: their mean would go into the biases of units that are new already."""

    def make(seed):
        torch.manual_seed(seed % 2**31)
        return Stream(bias=bias).double()

    part, still = ContinualBackprop(1.0, 0, transfer_bias=transfers), partial(torch.optim.SGD, lr=0.0)
    one = training_with("cbp", part, make=make, optimizer=still)
    assert [group.name for group in part.groups] == ["first", "alone"]
    batch = Batch(torch.randn(5, 4, dtype=torch.float64), torch.zeros(5, dtype=torch.int64))
    state, told = one.learner.step(one.state, batch, F.cross_entropy, one.draws.at(0, one.state["taken"]))
    assert told.numbers["cbp/replaced"] == 11
    assert state["net"][kept_in].tolist() == [0] * 6
    assert torch.equal(state["net"]["head.bias"], one.state["net"]["head.bias"]) is not transfers
