"""Plasticity injection: nothing changes at first, and afterwards the new parameters alone learn, in float64."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from taskshift.data.synthetic_images import synthetic_images
from taskshift.learners.cbp import ContinualBackprop
from taskshift.learners.plasticity_injection import PlasticityInjection, tail_of
from taskshift.learners.resets import FullReset, HeadReset
from taskshift.nets.convnet import ConvNet
from taskshift.nets.layer_kinds import LayerName
from taskshift.nets.mlp import MLP
from taskshift.nets.resnet18 import ResNet18
from taskshift.nets.transformer import Transformer
from taskshift.shifts.permuted import Permuted
from taskshift.stream import TaskStream
from tests.framework.learning import train, training_of

NETS = {
    "resnet18 from its last block": (lambda: ResNet18((1, 8, 8), 4, width=2), 8),
    "mlp": (lambda: MLP((1, 4, 4), 4, width=6, activation="tanh"), 4),
    "convnet": (lambda: ConvNet((1, 24, 24), 4, channels=(2, 3, 4), width=5, norm="batch"), 24),
    "resnet18": (lambda: ResNet18((1, 8, 8), 4, width=2), 8),
}
TAILS = {
    "resnet18 from its last block": ("layer4.1", "avgpool", "flatten", "fc"),
    "mlp": ("hidden.linear_1", "hidden.activation_1", "hidden.linear_2", "hidden.activation_2", "head"),
    "convnet": (*(f"hidden.{part}_{n}" for n in (1, 2) for part in ("linear", "norm", "activation")), "head"),
    "resnet18": ("fc",),
}


class Halved(nn.Module):
    """A net whose outputs are no module's own."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, inputs):
        return self.head(inputs) / 2


class Within(nn.Module):
    """A net that holds another."""

    def __init__(self, within):
        super().__init__()
        self.within = within

    def forward(self, inputs):
        return self.within(inputs)


def drawn(name):
    def make(seed):
        torch.manual_seed(seed % 2**31)
        return NETS[name][0]().double()

    return make


FIRST = {"resnet18 from its last block": "layer4.1"}
"""Where a tail begins that is asked for."""


def stream_of(side):
    data = synthetic_images(num_classes=4, side=side, train_size=48, test_size=16)
    data = replace(data, inputs=data.inputs.double(), black=data.black.double())
    return TaskStream(data, Permuted(seed=0), num_tasks=4, batch_size=16, seed=0)


def trained_on_a_task(name, optimizer=torch.optim.Adam, **interventions):
    stream = stream_of(NETS[name][1])
    training = training_of(drawn(name)(0), optimizer, stream, make_net=drawn(name), interventions=interventions)
    train(training, stream)
    return training, stream


def switched(training, stream, index=1):
    task = stream[index]
    return training.begin(task, stream.in_batches(task, task.train))


def outputs_of(training, inputs, mode):
    """In this mode, of a copy: in train mode running statistics move."""
    return copy.deepcopy(training.net).train(mode)(inputs).detach()


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_outputs_are_the_same_at_the_moment_of_injection(name, mode):
    training, stream = trained_on_a_task(name, inject=PlasticityInjection(tail=FIRST.get(name)))
    inputs = next(stream.epoch(stream[1], 0)).inputs
    before, old = outputs_of(training, inputs, mode), {key: value.clone() for key, value in training.state["net"].items()}
    assert switched(training, stream)["inject/injected"] == 1
    torch.testing.assert_close(outputs_of(training, inputs, mode), before, rtol=1e-12, atol=1e-12)
    for key in training.learner.trained:
        in_tail = any(key.startswith(f"{module}.") for module in TAILS[name])
        assert torch.equal(training.state["net"][key], old[key]) != in_tail, key


@pytest.mark.parametrize("name", NETS)
def test_before_it_the_net_learns_as_it_would_without(name):
    """The same bits, of the encoder too."""
    with_it, stream = trained_on_a_task(name, inject=PlasticityInjection(at_task=2, tail=FIRST.get(name)))
    without, _ = trained_on_a_task(name)
    assert switched(with_it, stream)["inject/injected"] == 0
    assert all(torch.equal(value, with_it.state["net"][key]) for key, value in without.state["net"].items())
    assert with_it.learner.trained == without.learner.trained


def test_before_it_copies_add_nothing_though_they_draw():
    """Dropout in a tail has another mask in each copy."""
    net = Within(nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 3))).double()
    plain, inputs = copy.deepcopy(net), torch.randn(6, 5, generator=torch.Generator().manual_seed(1)).double()
    PlasticityInjection().extend(net, inputs)
    torch.manual_seed(0)
    expected = plain(inputs)
    torch.manual_seed(0)
    assert torch.equal(net(inputs), expected)


def test_afterwards_the_new_parameters_and_the_encoder_learn_by_the_rule():
    """A step by SGD against the sum of three nets written out, each a module of its own."""
    training, stream = trained_on_a_task("convnet", torch.optim.SGD, inject=PlasticityInjection())
    kept = drawn("convnet")(0)
    kept.load_state_dict({key: training.state["net"][key] for key in kept.state_dict()})
    switched(training, stream)
    new, added = copy.deepcopy(kept), training.state["net"]
    new.load_state_dict({key: added[key] for key in new.state_dict()})
    fixed, batch = copy.deepcopy(new), next(stream.epoch(stream[1], 0))
    for _ in range(2):
        maps = new.features(batch.inputs).flatten(1)
        outputs = kept.head(kept.hidden(maps)) + new.head(new.hidden(maps)) - fixed.head(fixed.hidden(maps))
        new.zero_grad()
        F.cross_entropy(outputs, batch.targets).backward()
        with torch.no_grad():
            for parameter in new.parameters():
                parameter -= 1e-3 * parameter.grad  # torch's SGD has lr 0.001
        training.learn(stream[1], batch)
    state = training.state["net"]
    for key, value in new.state_dict().items():
        torch.testing.assert_close(state[key], value, rtol=1e-12, atol=1e-12, msg=lambda words, key=key: f"{key}: {words}")
    for place, module in enumerate(TAILS["convnet"]):
        for copies, net in (("kept", kept), ("fixed", fixed)):
            for key, value in net.get_submodule(module).state_dict().items():
                torch.testing.assert_close(state[f"injection.{copies}.{place}.{key}"], value, rtol=1e-12, atol=1e-12)
    assert (new.head.weight - fixed.head.weight).abs().max() > 1e-6


def test_the_optimizer_forgets_the_tail_alone():
    training, stream = trained_on_a_task("convnet", inject=PlasticityInjection())
    slots = copy.deepcopy(training.state["slots"])
    switched(training, stream)
    for slot, of in training.state["slots"].items():
        for key, value in of.items():
            assert torch.equal(value, torch.zeros_like(value) if key.startswith(("hidden", "head")) else slots[slot][key])


def test_of_a_linear_head_alone_the_sum_is_the_same_net():
    """Under SGD it learns as if nothing had been done; so a tail has a nonlinearity in it unless the net leaves none."""
    with_it, stream = trained_on_a_task("mlp", torch.optim.SGD, inject=PlasticityInjection(tail="head"))
    without, _ = trained_on_a_task("mlp", torch.optim.SGD)
    inputs = next(stream.epoch(stream[2], 0)).inputs
    for training in (with_it, without):
        train(training, stream, index=1, epochs=3)
    torch.testing.assert_close(outputs_of(with_it, inputs, False), outputs_of(without, inputs, False), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layer", get_args(LayerName))
def test_a_tail_may_be_of_any_kind_of_layer(layer):
    """Also where a weight is computed by a module of its own, which is given nothing."""

    def make(seed):
        torch.manual_seed(seed % 2**31)
        return MLP((1, 4, 4), 4, width=6, layer=layer).double()

    stream = stream_of(4)
    training = training_of(make(0), torch.optim.SGD, stream, make_net=make, interventions={"inject": PlasticityInjection()})
    train(training, stream)
    inputs = next(stream.epoch(stream[1], 0)).inputs
    before, old = outputs_of(training, inputs, False), {key: value.clone() for key, value in training.state["net"].items()}
    switched(training, stream)
    torch.testing.assert_close(outputs_of(training, inputs, False), before, rtol=1e-12, atol=1e-12)
    assert not any(torch.equal(training.state["net"][key], old[key]) for key in training.learner.trained if "bias" not in key)


def test_a_second_one_is_refused():
    """It would add what the first one has added as well, or nothing."""
    with pytest.raises(ValueError, match="the net has a part called 'injection' already; one plasticity injection is all that"):
        trained_on_a_task("mlp", one=PlasticityInjection(), two=PlasticityInjection(at_task=2))


def test_it_is_done_once():
    training, stream = trained_on_a_task("mlp", inject=PlasticityInjection())
    told = [switched(training, stream, index)["inject/injected"].item() for index in (1, 2, 3)]
    assert told == [1, 0, 0]


def test_a_full_reset_takes_it_back():
    training, stream = trained_on_a_task("mlp", inject=PlasticityInjection(), all=FullReset())
    switched(training, stream)
    state, inputs = training.state["net"], next(stream.epoch(stream[1], 0)).inputs
    assert not state["injection.on"]
    net = drawn("mlp")(0)
    net.load_state_dict({key: state[key] for key in net.state_dict()})
    assert torch.equal(outputs_of(training, inputs, False), net(inputs))


def test_units_that_a_kept_copy_reads_are_left_to_others():
    """Continual backprop replaces units within the tail; those of the encoder are read by parameters that are fixed."""
    training, _ = trained_on_a_task("convnet", inject=PlasticityInjection(), cbp=ContinualBackprop())
    assert list(training.state["parts"]["cbp"]) == ["features.conv_1", "features.conv_2", "hidden.linear_1", "hidden.linear_2"]


def test_a_head_that_is_not_the_outputs_own_is_not_reset():
    with pytest.raises(ValueError, match="no layer's output is the net's own, so there is no head to reset"):
        trained_on_a_task("mlp", inject=PlasticityInjection(), head=HeadReset())


# -- the tail ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_the_tail_begins_after_the_convolutions(name):
    side = NETS[name][1]
    assert tail_of(NETS[name][0](), torch.zeros(2, 1, side, side), FIRST.get(name)) == TAILS[name]


@pytest.mark.parametrize(
    ("net", "first", "tail"),
    [
        (lambda: MLP((1, 8, 8), 3), "hidden", ("hidden", "head")),
        (lambda: MLP((1, 8, 8), 3), "hidden.linear_2", ("hidden.linear_2", "hidden.activation_2", "head")),
        (lambda: Transformer((1, 8, 8), 3, width=8, heads=2), None, ("head",)),
        (lambda: ResNet18((1, 8, 8), 3, width=2), "layer4.1", ("layer4.1", "avgpool", "flatten", "fc")),
    ],
)
def test_a_tail_may_begin_anywhere_from_where_modules_hand_on_to_one_another(net, first, tail):
    assert tail_of(net(), torch.zeros(2, 1, 8, 8), first) == tail


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: PlasticityInjection(at_task=0), "at_task is 0; the number of a task that a switch begins, 1 or more"),
        (
            lambda: tail_of(nn.Sequential(nn.Linear(3, 2)), torch.zeros(2, 3), "had"),
            "tail='had' is no module of the net; it has 0",
        ),
        (lambda: PlasticityInjection().extend(nn.Sequential(nn.Linear(3, 2)), torch.zeros(2, 3)), "the net is a Sequential"),
        (
            lambda: tail_of(Transformer((1, 8, 8), 3, width=8, heads=2), torch.zeros(2, 1, 8, 8), "patches"),
            "tail='patches' begins no chain of modules, each called once and given what the last one gave, that ends",
        ),
        (lambda: tail_of(Halved(), torch.zeros(2, 3)), "no linear layer of the net begins a chain of modules"),
    ],
)
def test_a_wrong_option_is_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
