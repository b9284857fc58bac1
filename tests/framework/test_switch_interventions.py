"""Interventions, penalties and rules against their formulas, in float64, on a net with norm and skip."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from taskshift.data.synthetic_images import synthetic_images
from taskshift.learners.hare_and_tortoise import HareAndTortoise
from taskshift.learners.interventions import ResetOptimizer
from taskshift.learners.noise import Noisy, Perturb
from taskshift.learners.part import Context, Subject
from taskshift.learners.resets import FullReset, HeadReset, head_of
from taskshift.learners.rules.upgd import UPGD
from taskshift.learners.shrink_and_perturb import ShrinkAndPerturb
from taskshift.learners.spectral import Parseval, SpectralRegularization
from taskshift.learners.toward_initial import HuberInit, L1Init, L2Init, WassersteinInit
from taskshift.learners.warm_starts import Dash, Fire, polar
from taskshift.learners.weight_clipping import WeightClipping
from taskshift.nets.convnet import ConvNet
from taskshift.nets.mlp import MLP
from taskshift.nets.resnet18 import ResNet18
from taskshift.nets.transformer import Transformer
from taskshift.shifts.permuted import Permuted
from taskshift.stream import TaskStream
from tests.framework.learning import train, training_of


class Skipping(nn.Module):
    """A convolution, a norm, a block that is gone round, a head whose output is returned as it is."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.block = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.head = nn.Linear(48, 4)

    def forward(self, inputs):
        maps = self.norm(self.first(inputs)).relu()
        return self.head((maps + self.block(maps).relu()).flatten(1))


def make_net(seed):
    torch.manual_seed(seed)
    return Skipping().double()


@pytest.fixture
def stream():
    data = synthetic_images(num_classes=4, side=4, train_size=96, test_size=40)
    data = replace(data, inputs=data.inputs.double(), black=data.black.double())
    return TaskStream(data, Permuted(seed=0), num_tasks=3, batch_size=16, seed=0)


def trained_with(stream, **interventions):
    """A training that has learnt task 0 with Adam, and its tensors before the switch."""
    training = training_of(make_net(0), torch.optim.Adam, stream, make_net=make_net, interventions=interventions)
    train(training, stream)
    before = {name: tensor.clone() for name, tensor in training.state["net"].items()}
    return training, before


def switched(training, stream):
    task = stream[1]
    numbers = training.begin(task, stream.in_batches(task, task.train))
    return dict(training.state["net"]), numbers


def fresh_of(training):
    """The net that the switch draws, found by its head: `make_net` of whatever seed it asked for."""
    seeds = []
    drawn = training._make_net

    def remembered(seed):
        seeds.append(seed)
        return drawn(seed)

    training._make_net = remembered
    return lambda: dict(make_net(seeds[0]).state_dict())


def test_shrink_and_perturb_mixes_with_a_net_drawn_anew(stream):
    training, before = trained_with(stream, mix=ShrinkAndPerturb(0.6, 0.1))
    fresh = fresh_of(training)
    after, _ = switched(training, stream)
    for name in training.learner.trained:
        torch.testing.assert_close(after[name], 0.6 * before[name] + 0.1 * fresh()[name], rtol=1e-12, atol=1e-12)
    assert torch.equal(after["norm.running_mean"], before["norm.running_mean"])


@pytest.mark.parametrize("to", ["fresh", "zero"])
def test_a_head_reset_changes_the_head_and_what_the_optimizer_knows_of_it(to, stream):
    training, before = trained_with(stream, head=HeadReset(to))
    fresh = fresh_of(training)
    slots = copy.deepcopy(training.state["slots"])
    after, _ = switched(training, stream)
    for name, value in after.items():
        if name.startswith("head."):
            assert torch.equal(value, fresh()[name] if to == "fresh" else torch.zeros_like(value))
            assert all(not of[name].any() for of in training.state["slots"].values())
        else:
            assert torch.equal(value, before[name])
            assert all(torch.equal(of[name], slots[slot][name]) for slot, of in training.state["slots"].items() if name in of)
    assert slots["exp_avg"]["head.weight"].any()


def test_a_full_reset_is_a_new_run(stream):
    training, before = trained_with(stream, all=FullReset())
    fresh = fresh_of(training)
    after, _ = switched(training, stream)
    assert all(torch.equal(value, fresh()[name]) for name, value in after.items())
    assert not torch.equal(after["norm.running_var"], before["norm.running_var"])
    assert all(not value.any() for of in training.state["slots"].values() for value in of.values())


def test_an_optimizers_reset_leaves_the_net(stream):
    training, before = trained_with(stream, forget=ResetOptimizer())
    after, _ = switched(training, stream)
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert all(not value.any() for of in training.state["slots"].values() for value in of.values())


def test_dash_shrinks_what_does_not_point_downhill(stream):
    training, before = trained_with(stream, dash=Dash(decay=0.3, least=0.2))
    net, task = make_net(0), stream[1]
    net.load_state_dict(before)
    net.eval()
    averages = {name: torch.zeros_like(before[name]) for name in ("first.weight", "block.weight", "head.weight")}
    for batch in stream.in_batches(task, task.train):
        net.zero_grad()
        F.cross_entropy(net(batch.inputs), batch.targets).backward()
        for name, average in averages.items():
            averages[name] = 0.3 * average + 0.7 * net.get_parameter(name).grad
    after, _ = switched(training, stream)
    shares = []
    for name, average in averages.items():
        for unit in range(len(average)):
            w, g = before[name][unit].flatten(), average[unit].flatten()
            share = float(torch.clamp(-(w @ g) / (w.norm() * g.norm()), 0.2, 1.0))
            torch.testing.assert_close(after[name][unit].flatten(), share * w, rtol=1e-9, atol=1e-12)
            shares.append(share)
    assert min(shares) == 0.2
    assert torch.equal(after["head.bias"], before["head.bias"])


def test_fire_makes_weights_orthogonal(stream):
    training, before = trained_with(stream, fire=Fire(iterations=60))
    after, _ = switched(training, stream)
    head = after["head.weight"]
    torch.testing.assert_close(head @ head.T, torch.eye(4).double() * 4 / 48, rtol=1e-9, atol=1e-12)
    u, _, vh = torch.linalg.svd(before["head.weight"], full_matrices=False)
    torch.testing.assert_close(head, (4 / 48) ** 0.5 * u @ vh, rtol=1e-9, atol=1e-12)
    for row in range(3):
        for column in range(3):
            u, _, vh = torch.linalg.svd(before["block.weight"][:, :, row, column])
            torch.testing.assert_close(after["block.weight"][:, :, row, column], u @ vh, rtol=1e-6, atol=1e-9)


def test_ten_steps_of_newton_and_schulz_come_near_the_polar_factor():
    matrix = torch.randn(1, 6, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    assert (polar(matrix, 10) - u @ vh).abs().max() < 1e-2
    assert torch.equal(polar(torch.zeros(1, 2, 3), 10), torch.zeros(1, 2, 3))


def slow_of(training):
    return training.state["parts"]["pair"]["tortoise"]


def test_the_hare_is_put_back_every_so_many_epochs(stream):
    part = HareAndTortoise(decay=0.9, every_epochs=2)
    training = training_of(make_net(0), torch.optim.SGD, stream, interventions={"pair": part})
    for epoch in range(1, 5):
        for batch in stream.epoch(stream[0], epoch):
            training.learn(stream[0], batch)
        hare = {name: tensor.clone() for name, tensor in training.state["net"].items()}
        told = training.end_epoch(stream[0], {"loss": 1.0})
        put_back = epoch % 2 == 0
        assert told["pair/put_back"].item() == put_back
        now, tortoise = training.state["net"], slow_of(training)
        assert all(torch.equal(now[name], tortoise[name] if put_back else hare[name]) for name in now)
        assert any(not torch.equal(hare[name], tortoise[name]) for name in now)
        for batch in list(stream.epoch(stream[0], 9))[:1]:  # the two share no memory after it
            training.learn(stream[0], batch)
        assert any(not torch.equal(training.state["net"][name], slow_of(training)[name]) for name in now)


@pytest.mark.parametrize(
    ("net", "shape", "name"),
    [
        (MLP((1, 4, 4), 3, width=5), (1, 4, 4), "head"),
        (nn.Sequential(nn.Flatten(), weight_norm(nn.Linear(16, 4, bias=False))), (1, 4, 4), "1"),
        (ResNet18((3, 8, 8), 3, width=2), (3, 8, 8), "fc"),
        (nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 2))), (1, 4, 4), "1.2"),
    ],
)
def test_the_head_is_found_whatever_it_is_called(net, shape, name):
    assert head_of(net, torch.randn(2, *shape)) == name


def test_a_net_without_a_head_is_one_sentence():
    with pytest.raises(ValueError, match="no layer's output is the net's own, so there is no head to reset"):
        head_of(nn.Sequential(nn.Linear(3, 2), nn.Softmax(dim=1)), torch.randn(2, 3))


# -- penalties ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "slope"),
    [
        (L2Init(0.5), lambda value, start: 0.5 * (value - start)),
        (L1Init(0.5), lambda value, start: 0.5 * (value - start).sign()),
        (HuberInit(0.5, delta=1e-3), lambda value, start: 0.5 * (value - start).clamp(-1e-3, 1e-3)),
    ],
)
def test_penalties_pull_back_to_the_start(part, slope, stream):
    training = training_of(make_net(0), torch.optim.SGD, stream)
    pulled = training_of(make_net(0), torch.optim.SGD, stream, regularizers={"pull": part})
    start = {name: training.state["net"][name].clone() for name in training.learner.trained}
    train(training, stream)
    pulled.state = {**training.state, "parts": pulled.state["parts"], "settings": pulled.state["settings"]}
    batch, before = next(stream.epoch(stream[0], 7)), dict(training.state["net"])
    training.learn(stream[0], batch)
    pulled.learn(stream[0], batch)
    for name in training.learner.trained:
        lacking = training.state["net"][name] - 1e-3 * slope(before[name], start[name])  # torch's SGD has lr 0.001
        torch.testing.assert_close(pulled.state["net"][name], lacking, rtol=1e-12, atol=1e-12)


def test_wasserstein_knows_no_places():
    part = WassersteinInit(1.0)
    first = torch.tensor([[3.0, 1.0], [2.0, 0.0]])
    assert part.distance(first.flip(0, 1), first, {}) == 0
    assert part.distance(first + 1, first, {}) == 4
    moved = torch.tensor([[0.0, 3.0], [1.0, 5.0]])  # sorted 0 1 3 5 beside 0 1 2 3
    assert part.distance(moved, first, {}) == 1 + 4


def test_a_table_of_positions_is_no_layers_weight_and_every_norms_scale_is_one(stream):
    task = stream[0]
    torch.manual_seed(0)
    net = Transformer((1, 4, 4), 4, patch=2, depth=1, width=4, heads=2, mlp_width=4).double()
    training = training_of(net, torch.optim.SGD, stream, interventions={"fire": Fire()})
    before = training.state["net"]["positions"].clone()
    training.begin(stream[1], stream.in_batches(task, task.train))
    assert torch.equal(training.state["net"]["positions"], before)
    part = SpectralRegularization(1.0)
    training_of(ConvNet((1, 24, 24), 4, norm="rms"), torch.optim.SGD, large(stream), regularizers={"spectral": part})
    assert part.scales == (*(f"features.norm_{n}.weight" for n in (1, 2, 3)), *(f"hidden.norm_{n}.weight" for n in (1, 2)))


def large(stream):
    """The same stream of images of 24×24."""
    data = synthetic_images(num_classes=4, side=24, train_size=32, test_size=8)
    return TaskStream(data, stream.shift, num_tasks=1, batch_size=16, seed=0)


def test_a_net_without_layers_has_no_weights_to_work_on(stream):
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 16, dtype=torch.float64))

        def forward(self, inputs):
            return inputs.flatten(1) @ self.weight.T

    with pytest.raises(ValueError, match="the net has no trained linear layer and no convolution"):
        training_of(Bare(), torch.optim.SGD, stream, interventions={"fire": Fire()})


def test_spectral_regularization_finds_the_largest_singular_values(stream):
    """From any vector: one step of power iteration a step of the optimizer is enough, since weights move slowly."""
    part = SpectralRegularization(0.0)
    training = training_of(make_net(0), torch.optim.SGD, stream, regularizers={"spectral": part})
    assert part.matrices == ("first.weight", "block.weight", "head.weight")
    assert part.scales == ("norm.weight",)
    draw = torch.Generator().manual_seed(0)
    for name, right in training.state["parts"]["spectral"]["right"].items():
        random = torch.randn(right.shape, generator=draw, dtype=right.dtype)
        training.state["parts"]["spectral"]["right"][name] = random / random.norm()
    train(training, stream, epochs=60)
    for name in part.matrices:
        matrix = training.state["net"][name].flatten(1)
        found = (matrix @ training.state["parts"]["spectral"]["right"][name]).norm()
        torch.testing.assert_close(found, torch.linalg.matrix_norm(matrix, 2), rtol=1e-3, atol=0)


# -- noise and clipping --------------------------------------------------------------------------------------------


def test_noise_has_the_deviation_that_was_asked_for():
    data = synthetic_images(num_classes=4, side=4, train_size=32, test_size=8)
    stream = TaskStream(data, Permuted(seed=0), num_tasks=1, batch_size=16, seed=0)
    for given, factor in (({"interventions": {"noise": Perturb(0.1)}}, 1.0), ({"gradient": Noisy(0.1)}, 1e-3)):
        torch.manual_seed(0)
        net = MLP((1, 4, 4), 4, width=200)
        plain, noisy = (training_of(copy.deepcopy(net), torch.optim.SGD, stream, **more) for more in ({}, given))
        batch = next(stream.epoch(stream[0], 0))
        for one in (plain, noisy):
            one.learn(stream[0], batch)
        noise = torch.cat([(noisy.state["net"][n] - plain.state["net"][n]).flatten() for n in plain.learner.trained]) / factor
        assert abs(noise.mean()) < 5 * 0.1 / len(noise) ** 0.5
        assert abs(noise.std() / 0.1 - 1) < 5 / (2 * len(noise)) ** 0.5


def test_clipping_tells_how_many_weights_it_clipped_and_leaves_norms(stream):
    training = training_of(make_net(0), torch.optim.SGD, stream, interventions={"clip": WeightClipping(0.5)})
    before = {name: tensor.clone() for name, tensor in training.state["net"].items()}
    told = training.learn(stream[0], next(stream.epoch(stream[0], 0))).numbers["clip/clipped"]
    bounds = {"first.weight": 9, "first.bias": 9, "block.weight": 27, "head.weight": 48, "head.bias": 48}
    for name, inputs in bounds.items():
        assert training.state["net"][name].abs().max() == pytest.approx(0.5 * inputs**-0.5)
    assert training.state["net"]["norm.weight"].min() > 0.9
    about = sum(int((before[name].abs() > 0.5 * inputs**-0.5).sum()) for name, inputs in bounds.items())
    assert abs(int(told) - about) < 10


def test_clipping_may_leave_the_head(stream):
    training = training_of(make_net(0), torch.optim.SGD, stream, interventions={"clip": WeightClipping(0.5, "[!h]*")})
    training.learn(stream[0], next(stream.epoch(stream[0], 0)))
    assert training.state["net"]["head.weight"].abs().max() > 0.6 * 48**-0.5


# -- UPGD ----------------------------------------------------------------------------------------------------------


def test_without_a_useful_weight_the_order_of_utilities_stays(stream):
    """The reference divides by the largest utility, which turns their order round where that is below 0."""
    rule = UPGD(lr=1.0, sigma=0.0, beta_utility=0.0)
    net = {"w": torch.tensor([1.0, 2.0], dtype=torch.float64)}
    training = training_of(make_net(0), rule, stream)
    settings = training.state["settings"]["optimizer"]
    context = Context(settings, gradients={"w": torch.ones(2).double()}, draws={"w": torch.zeros(2).double()})
    after = rule.step(Subject(net, rule.first_slots(net), {}), context).net["w"]
    held = torch.sigmoid(torch.tensor([-1.0, -2.0], dtype=torch.float64) / 2.0)  # utilities −1 and −2
    torch.testing.assert_close(after, net["w"] - (1 - held))
    assert held[0] > held[1]


@pytest.mark.parametrize("protects", [True, False])
def test_adaptive_utilities_take_adams_direction(protects, stream):
    rule = UPGD(lr=0.1, sigma=0.0, beta_utility=0.5, weight_decay=0.2, protects=protects, adam_betas=(0.9, 0.99))
    training = training_of(make_net(0), rule, stream)
    theta, slots = {"w": torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)}, None
    slots = rule.first_slots(theta)
    m = v = u = torch.zeros(3).double()
    for step in range(1, 4):
        g = torch.tensor([0.3, 0.1, -0.2], dtype=torch.float64) * step
        context = Context(training.state["settings"]["optimizer"], gradients={"w": g}, draws={"w": torch.zeros(3).double()})
        u = 0.5 * u + 0.5 * (-g * theta["w"])
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        direction = m / (1 - 0.9**step) / ((v / (1 - 0.99**step)).sqrt() + 1e-8)
        held = torch.sigmoid((u / (1 - 0.5**step)) / (u / (1 - 0.5**step)).max())
        wanted = theta["w"] * (1 - 0.02) - 0.1 * direction * ((1 - held) if protects else 1)
        after = rule.step(Subject(theta, slots, {}), context)
        torch.testing.assert_close(after.net["w"], wanted, rtol=1e-10, atol=1e-12)
        theta, slots = dict(after.net), after.slots


# -- wrong options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: L2Init(-1), "weight is -1; the weight of a penalty is 0 or more"),
        (lambda: HuberInit(1, delta=0), "delta is 0; the distance from which"),
        (lambda: SpectralRegularization(1, power=0), "power is 0; a whole number, 1 or more"),
        (lambda: Parseval(1, scale=0), "scale is 0; the squared length of a row is above 0"),
        (lambda: Perturb(-1), "sigma is -1; a standard deviation is 0 or more"),
        (lambda: Noisy(float("nan")), "sigma is nan; a standard deviation is 0 or more"),
        (lambda: ShrinkAndPerturb(2, 0), "shrink is 2; the share of the parameters that stays lies between 0 and 1"),
        (lambda: WeightClipping(0), "kappa is 0; the bound, in initial bounds, is above 0"),
        (lambda: HareAndTortoise(1.0), "decay is 1.0; the share of the tortoise that stays"),
        (lambda: HareAndTortoise(every_epochs=0), "every_epochs is 0; a whole number, 1 or more"),
        (lambda: HeadReset("ones"), "to='ones' is not known; choose one of fresh, zero"),
        (lambda: Dash(least=2), "least is 2; it lies between 0 and 1"),
        (lambda: Fire(0), "iterations is 0; a whole number, 1 or more"),
        (lambda: UPGD(lr=-1), "lr is -1; it is 0 or more"),
        (lambda: UPGD(beta_utility=1), "beta_utility is 1; a decay is at least 0 and below 1"),
    ],
)
def test_a_wrong_option_is_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_glob_that_names_nothing_lists_what_there_is(stream):
    with pytest.raises(ValueError, match=r"layers='conv\*' names none of the net's weights: first.weight, block.weight, head.w"):
        training_of(make_net(0), torch.optim.SGD, stream, interventions={"clip": WeightClipping(1, "conv*")})


def test_weights_that_are_computed_from_others_are_refused(stream):
    net = nn.Sequential(nn.Flatten(), weight_norm(nn.Linear(16, 4))).double()
    with pytest.raises(ValueError, match="the weight of 1 is computed from other parameters"):
        training_of(net, torch.optim.SGD, stream, interventions={"fire": Fire()})
    with pytest.raises(ValueError, match="the head 1 computes its weight from other parameters, which zeros do not suit"):
        training_of(net, torch.optim.SGD, stream, interventions={"head": HeadReset("zero")})
