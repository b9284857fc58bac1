"""Rates by depth, and the effective rate of layers whose scale is free."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from taskshift.faults import Fault
from taskshift.learners.depths import depths_of
from taskshift.learners.effective_rate import EffectiveRate
from taskshift.learners.layer_rates import LayerRates
from taskshift.learners.learner import Learner
from taskshift.learners.redo import ReDo
from taskshift.learners.weight_clipping import WeightClipping
from taskshift.nets.convnet import ConvNet
from taskshift.shifts.losses import CrossEntropy
from taskshift.shifts.task import Batch, Task
from taskshift.training import Training

TASK = Task(0, torch.arange(1), torch.arange(1), None, CrossEntropy())


class BackToFront(nn.Module):
    """Registered from the last layer to the first; one of its layers is never used."""

    def __init__(self, *, norm: bool = True):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.idle = nn.Linear(5, 5)
        self.norms = nn.ModuleList([nn.LayerNorm(6, eps=1e-30) if norm else nn.Identity() for _ in range(2)])
        self.second = nn.Linear(6, 6, bias=False)
        self.first = nn.Linear(4, 6, bias=False)

    def forward(self, inputs):
        hidden = torch.tanh(self.norms[0](self.first(inputs)))
        return self.head(torch.tanh(self.norms[1](self.second(hidden))))


def net_of(**options) -> BackToFront:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BackToFront(**options).double()


def batches(count: int = 5) -> list[Batch]:
    draw = torch.Generator().manual_seed(1)
    return [
        Batch(torch.randn(8, 4, generator=draw, dtype=torch.float64), torch.randint(3, (8,), generator=draw))
        for _ in range(count)
    ]


def training_of(net: nn.Module, *, momentum: float = 0.0, **interventions) -> Training:
    learner = Learner(net, partial(torch.optim.SGD, lr=0.1, momentum=momentum), interventions=interventions)
    return Training(learner, Batch(*(part[:2] for part in batches(1)[0])))


# -- depth


def test_depth_goes_by_the_forward_pass():
    net = net_of()
    names = tuple(name for name, _ in net.named_parameters())
    depths = depths_of(net, batches(1)[0].inputs, names)
    assert depths == {
        "head.weight": 1,
        "head.bias": 1,
        "second.weight": 0.5,
        "norms.1.weight": 0.5,
        "norms.1.bias": 0.5,
        "first.weight": 0,
        "norms.0.weight": 0,
        "norms.0.bias": 0,
        "idle.weight": 0,
        "idle.bias": 0,
    }


def test_a_norm_belongs_to_the_layer_before_it():
    net = ConvNet((1, 24, 24), 3, norm="batch")
    depths = depths_of(net, torch.zeros(2, 1, 24, 24), tuple(name for name, _ in net.named_parameters()))
    kernels = {name.rpartition(".")[0]: depth for name, depth in depths.items() if net.get_parameter(name).dim() > 1}
    assert [*kernels.values()] == sorted(kernels.values())
    assert (min(kernels.values()), max(kernels.values())) == (0, 1)
    assert len(set(depths.values())) == len(kernels)


class Positioned(nn.Module):
    """A table beside layers, and attention, whose output layer is called by no module's call."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(3, 8))
        self.first = nn.Linear(4, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, inputs):
        hidden = self.first(inputs[:, None]) + self.table
        return self.head(self.attention(hidden, hidden, hidden)[0].mean(dim=1))


def test_what_stands_beside_layers_belongs_to_the_nearest():
    net = Positioned()
    depths = depths_of(net, torch.zeros(2, 4), tuple(name for name, _ in net.named_parameters()))
    assert depths["table"] == depths["first.weight"] == 0
    assert depths["attention.in_proj_weight"] == depths["attention.out_proj.weight"] == depths["attention.out_proj.bias"] == 0.5
    assert depths["head.weight"] == 1


# -- rates


def test_turns_begin_anew_with_a_task_where_they_are_asked_to():
    training = training_of(net_of(), layer_rates=LayerRates(interval=3, per_task=True))
    for batch in batches(2):
        training.learn(TASK, batch)
    assert training.state["parts"]["layer_rates"]["steps"] == 2
    training.begin(Task(1, torch.arange(1), torch.arange(1), None, CrossEntropy()))
    assert training.state["parts"]["layer_rates"]["steps"] == 0
    before = training.net.first.weight.clone()
    training.learn(TASK, batches(1)[0])
    assert torch.equal(training.net.first.weight, before)


def test_a_layer_between_its_turns_keeps_its_momentum():
    training = training_of(net_of(), momentum=0.9, layer_rates=LayerRates(interval=2))
    momenta = []
    for batch in batches(3):
        training.learn(TASK, batch)
        momenta.append(training.state["slots"]["momentum_buffer"]["first.weight"].clone())
    assert not momenta[0].any()
    assert momenta[1].any()
    assert torch.equal(momenta[1], momenta[2])


def test_the_step_is_scaled_before_others_act_on_the_net():
    """Whatever their order in the config: what another one makes of the net is no part of the optimizer's step."""
    clipping = WeightClipping(kappa=0.5)
    one = training_of(net_of(), clipping=clipping, layer_rates=LayerRates(ratio=5.0))
    other = training_of(net_of(), layer_rates=LayerRates(ratio=5.0), clipping=WeightClipping(kappa=0.5))
    for batch in batches():
        one.learn(TASK, batch)
        other.learn(TASK, batch)
    for name, tensor in one.net.state_dict().items():
        assert torch.equal(tensor, other.net.state_dict()[name])
    assert one.net.head.weight.abs().max() <= 0.5 / 6**0.5 + 1e-12


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"ratio": 0.0}, "ratio is 0.0; the last layer's learning rate over the first's is above 0"),
        ({"decay": -1.0}, "decay is -1.0"),
        ({"faster": "middle"}, "faster='middle' is not known; choose one of earlier, later"),
        ({"interval": 0}, "interval is 0; it is a number of steps, 1 or more"),
    ],
)
def test_nonsense_is_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        LayerRates(**options)


def test_later_layers_may_decay_faster():
    def moved(faster):
        training = training_of(net_of(), layer_rates=LayerRates(decay=50.0, faster=faster))
        training.learn(TASK, batches(1)[0])
        before = {name: p.clone() for name, p in training.net.named_parameters()}
        training.learn(TASK, batches(2)[1])
        return {name for name, p in training.net.named_parameters() if (p - before[name]).abs().max() > 1e-12}

    assert moved("earlier") == {"head.weight", "head.bias"}
    assert moved("later") == {"first.weight", "norms.0.weight", "norms.0.bias"}


class OwnCode(torch.optim.SGD):
    """A subclass steps by torch's own code."""


@pytest.mark.parametrize("optimizer", [torch.optim.NAdam, torch.optim.ASGD, partial(OwnCode, lr=0.1, momentum=0.9)])
def test_a_layers_first_turn_is_an_optimizers_first_step(optimizer):
    """Whatever is remembered at first: NAdam's product of momenta begins at 1."""
    learner = Learner(net_of(), optimizer, interventions={"layer_rates": LayerRates(interval=2)})
    training = Training(learner, Batch(*(part[:2] for part in batches(1)[0])))
    one, other = batches(2)
    training.learn(TASK, one)
    before = {name: p.detach().clone() for name, p in training.net.named_parameters()}
    training.learn(TASK, other)
    twin = net_of()
    twin.load_state_dict(before)
    made = optimizer(list(twin.parameters()))
    F.cross_entropy(twin(other.inputs), other.targets).backward()
    made.step()
    torch.testing.assert_close(training.net.first.weight, twin.first.weight, rtol=1e-12, atol=1e-14)
    assert not torch.equal(training.net.first.weight, before["first.weight"])


@pytest.mark.parametrize("name", ["SOAP", "Kron", "Shampoo"])
@pytest.mark.parametrize(
    ("part", "words"),
    [
        (lambda: LayerRates(interval=2), "layer_rates: with interval=2 layers keep what the optimizer remembers"),
        (lambda: ReDo(tau=10.0, every=1), "units cannot be begun anew with this optimizer: its"),
    ],
    ids=["turns", "units"],
)
def test_optimizers_that_mix_weights_are_refused_before_a_step(name, part, words):
    def make(seed):
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()

    optimizer = partial(getattr(pytest.importorskip("pytorch_optimizer"), name), lr=0.01)
    learner = Learner(make(0), optimizer, interventions={"part": part()})
    example = Batch(*(given[:2] for given in batches(1)[0]))
    training = Training(learner, example, make_net=make)
    with pytest.raises(Fault, match=words):
        training.rehearse(TASK, example)


# -- the effective rate


def gradient_at(net: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    names = [name for name, _ in net.named_parameters() if not name.startswith("idle")]
    loss = F.cross_entropy(net(batch.inputs), batch.targets)
    return dict(zip(names, torch.autograd.grad(loss, [net.get_parameter(name) for name in names]), strict=True))


def test_a_controlled_step_written_out():
    net, twin = net_of(), net_of()
    training = training_of(net, effective_rate=EffectiveRate(control=True))
    first = {name: p.detach().norm() for name, p in twin.named_parameters()}
    for batch in batches():
        slopes = gradient_at(twin, batch)
        angles, rates = [], []
        with torch.no_grad():
            for name, slope in slopes.items():
                parameter = twin.get_parameter(name)
                before = parameter.clone()
                is_free = name in ("first.weight", "second.weight")
                share = (parameter.norm() / first[name]) ** 2 if is_free else 1.0
                parameter -= 0.1 * share * slope
                if is_free:
                    rates.append(0.1 * share / before.norm() ** 2)
                    cosine = (before * parameter).sum() / before.norm() / parameter.norm()
                    angles.append(torch.arccos(cosine))
        step = training.learn(TASK, batch)
        for name, parameter in twin.named_parameters():
            torch.testing.assert_close(training.net.get_parameter(name), parameter, rtol=1e-12, atol=1e-12)
        told = step.numbers
        torch.testing.assert_close(told["effective_rate/effective_lr"], torch.stack(rates).mean(), rtol=1e-12, atol=0)
        torch.testing.assert_close(told["effective_rate/rotation"], torch.stack(angles).mean(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("control", [True, False])
def test_with_control_a_weight_turns_as_far_whatever_its_norm(control):
    turned = []
    for scale in (1.0, 7.0):
        net = net_of()
        training = training_of(net, effective_rate=EffectiveRate(control=control))
        for name in ("first.weight", "second.weight"):
            training.state["net"][name].mul_(scale)
        turned.append(training.learn(TASK, batches(1)[0]).numbers["effective_rate/rotation"].item())
    if control:
        assert turned[1] == pytest.approx(turned[0], rel=1e-9)
    else:
        assert turned[1] == pytest.approx(turned[0] / 49, rel=0.05)


class Stream(nn.Module):
    """One weight that a norm follows alone, one that writes into a residual stream before its norm."""

    def __init__(self):
        super().__init__()
        self.first, self.alone, self.writes = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.inner, self.outer, self.head = nn.LayerNorm(6), nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, inputs):
        stream = self.first(inputs)
        return self.head(self.outer(stream + self.writes(torch.relu(self.inner(self.alone(stream))))))


def test_a_weight_that_writes_into_a_stream_has_no_free_scale():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        training = training_of(Stream().double(), effective_rate=EffectiveRate())
    assert set(training.state["parts"]["effective_rate"]["norms"]) == {"alone.weight"}


def test_a_net_without_norms_has_no_free_scale():
    with pytest.raises(ValueError, match="no norm layer with a scale follows a trained weight, so no layer's own is free"):
        training_of(net_of(norm=False), effective_rate=EffectiveRate())


def test_it_is_recorded_as_it_runs_eager():
    found = []
    for recorded in (False, True):
        net = net_of()
        parts = {"layer_rates": LayerRates(ratio=3.0, interval=2), "effective_rate": EffectiveRate(control=True)}
        training = training_of(net, momentum=0.9, **parts)
        given = batches()
        if recorded:
            training.use_programs(TASK, given[0], compiles=False)
        together = Batch(*(torch.stack(parts) for parts in zip(*given, strict=True)))
        numbers = training.learn_all(TASK, together).numbers
        found.append(({name: p.clone() for name, p in training.net.named_parameters()}, numbers))
    for eager, replayed in zip(*(nest.items() for nest, _ in found), strict=True):
        torch.testing.assert_close(eager[1], replayed[1], rtol=1e-12, atol=1e-12)
    for name, values in found[0][1].items():
        torch.testing.assert_close(values, found[1][1][name], rtol=1e-12, atol=1e-12)
