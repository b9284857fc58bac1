"""Features of nets that say nothing of their activations: written out, called as functions, on units that lie anywhere."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from taskshift.metrics import traced_features as traced
from taskshift.metrics import units
from taskshift.metrics.features import Features, of_each_layer


def seeded():
    return torch.Generator().manual_seed(0)


def as_they_were(features: Features) -> Features:
    return Features(features.layer, features.function, features.outputs.clone(), features.unit_axis)


def dead_units(net, inputs):
    found = of_each_layer(net, inputs, lambda one: units.dead(units.activity(one.outputs, one.unit_axis)))
    return {layer: dead.tolist() for layer, dead in found.items()}


class Bent(nn.Module):
    """Two layers with a function between them."""

    def __init__(self, bend):
        super().__init__()
        self.first, self.second, self.bend = nn.Linear(4, 6), nn.Linear(6, 2), bend

    def forward(self, x):
        return self.second(self.bend(self.first(x)))


WRITTEN_OUT = {
    "relu": F.relu,
    "clamp": lambda x: x.clamp(min=0),
    "maximum": lambda x: torch.maximum(x, torch.zeros(())),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "mul": lambda x: x * torch.sigmoid(x),
    "pow": lambda x: F.relu(x) ** 2,
    "sin": torch.sin,
    "div": lambda x: x / (1 + x.abs()),
}


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(traced, "_KNOWN", {})


@pytest.mark.parametrize("function", WRITTEN_OUT)
def test_an_activation_that_is_written_out_is_seen_as_the_weight_reads_it(function):
    torch.manual_seed(0)
    net, inputs = Bent(WRITTEN_OUT[function]), torch.randn(7, 4, generator=seeded())
    found = of_each_layer(net, inputs, as_they_were)
    assert list(found) == [function]
    assert torch.equal(found[function].outputs, net.bend(net.first(inputs)))


def test_what_a_norm_computes_is_no_activation():
    net = Bent(lambda x: x * (x.pow(2).mean(dim=1, keepdim=True) + 1e-6).rsqrt())
    assert list(of_each_layer(net, torch.randn(7, 4), as_they_were)) == ["first"], "as in a net without activations"


def test_one_that_is_read_as_well_as_bent_further_is_measured_twice():
    class Net(Bent):
        def forward(self, x):
            x = torch.tanh(self.first(x))
            return self.second(x) + self.second(x * x)

    assert list(of_each_layer(Net(None), torch.randn(7, 4), as_they_were)) == ["tanh", "mul"]


class Flattened(nn.Module):
    """A convolution whose map is flattened, or put last, before its activation."""

    def __init__(self, move):
        super().__init__()
        self.conv, self.move, self.head = nn.Conv2d(1, 3, 2), move, nn.Linear(27, 2)
        with torch.no_grad():
            self.conv.weight.fill_(1.0)
            self.conv.bias.copy_(torch.tensor([0.0, -100.0, 1.0]))  # of inputs in [0, 1] the second is silent

    def forward(self, x):
        return self.head(self.move(self.conv(x)).clamp(min=0).flatten(1))


@pytest.mark.parametrize("move", [lambda x: x.flatten(1), lambda x: x.permute(0, 2, 3, 1), lambda x: x.flatten(2)])
def test_a_channel_is_one_unit_wherever_it_lies(move):
    net, inputs = Flattened(move), torch.rand(5, 1, 4, 4, generator=seeded())
    assert dead_units(net, inputs) == {"clamp": [False, True, False]}
    found = of_each_layer(net, inputs, as_they_were)["clamp"]
    assert torch.equal(found.as_matrix(), move(net.conv(inputs)).clamp(min=0).flatten(1)), "its columns are as they come"


class Residual(nn.Module):
    """h = max(x W, 0), then h + max(h V, 0), each activation written out."""

    def __init__(self):
        super().__init__()
        self.into, self.block, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)
        with torch.no_grad():
            self.into.weight.copy_(torch.diag(torch.tensor([1.0, -1.0, 2.0])))
            self.into.bias.zero_()
            self.block.weight.copy_(torch.diag(torch.tensor([1.0, 1.0, -1.0])))
            self.block.bias.copy_(torch.tensor([0.0, 0.5, 0.0]))

    def forward(self, x):
        h = self.into(x).clamp(min=0)
        return self.head(F.relu(h + self.block(h).clamp(min=0)) if self.training else h + self.block(h).clamp(min=0))


def test_a_residual_net_by_hand():
    """Of inputs in [0, 1]: h = (x₁, 0, 2 x₃), and max(h V + b, 0) = (x₁, ½, 0)."""
    net, inputs = Residual().eval(), torch.rand(6, 3, generator=seeded())
    assert dead_units(net, inputs) == {"clamp": [False, True, False], "clamp_2": [False, False, True]}
    found = of_each_layer(net, inputs, as_they_were)
    x = inputs * torch.tensor([1.0, 0.0, 1.0])
    torch.testing.assert_close(found["clamp"].outputs, x * torch.tensor([1.0, 0.0, 2.0]))
    torch.testing.assert_close(found["clamp_2"].outputs, torch.stack([inputs[:, 0], torch.full((6,), 0.5), torch.zeros(6)], 1))


# -- what a trace costs, and where there is none ------------------------------------------------------------------


class Branching(Bent):
    """Looks at what it is given."""

    def forward(self, x):
        return self.second(F.relu(self.first(x))) if x.sum() > 0 else self.second(self.first(x))


def test_a_net_that_is_no_fixed_graph_is_seen_by_names_and_told_of_once(caplog):
    net, inputs = Branching(None), torch.rand(5, 4, generator=seeded())
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert list(of_each_layer(net, inputs, as_they_were)) == ["relu"]
    [told] = caplog.messages
    assert told.startswith("the features of Branching are those of the activations that torch has a name for: ")


def test_nets_built_alike_are_traced_once(monkeypatch):
    count, calls_of = [], traced.calls_of
    monkeypatch.setattr(traced, "calls_of", lambda *given: count.append(1) or calls_of(*given))
    for size in (5, 3, 1):
        of_each_layer(Bent(F.relu), torch.rand(size, 4, generator=seeded()), as_they_were)
    assert len(count) == 1


@pytest.mark.parametrize("other", [F.relu, torch.sin, lambda x: x.clamp(min=0) * 2])
def test_one_that_only_looks_built_alike_changes_nothing(other, caplog):
    """A net's features are the same, whatever was measured before it in this process."""
    inputs, one = torch.rand(5, 4, generator=seeded()), Bent(lambda x: x.clamp(min=0))
    expected = [(net, list(of_each_layer(net, inputs, as_they_were))) for net in (one, Bent(other))]
    assert expected[0][1] == ["clamp"]
    with caplog.at_level(logging.WARNING):
        for net, layers in [*expected, *expected]:
            assert list(of_each_layer(net, inputs, as_they_were)) == layers
    traced._KNOWN.clear()
    assert list(of_each_layer(expected[1][0], inputs, as_they_were)) == expected[1][1]
    assert caplog.text == ""


def test_one_that_does_not_always_call_the_same_is_seen_by_names(caplog):
    class Varying(Bent):
        count = 0

        def forward(self, x):
            self.count += 1
            return self.second(F.relu(self.first(x)) if self.count % 2 else F.relu(self.first(x)).clamp(min=0))

    net, inputs = Varying(None), torch.rand(5, 4, generator=seeded())
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            assert list(of_each_layer(net, inputs, as_they_were)) == ["relu"]
    assert "does not always call the same functions" in caplog.text
