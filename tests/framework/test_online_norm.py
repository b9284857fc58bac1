"""Online normalisation against its rules written out example by example, in float64, and the paper's two properties."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from loss_landscape import LossSurface
from taskshift import checkpoint
from taskshift.execution.shared import SharedPrograms
from taskshift.learners.learner import Learner
from taskshift.nets.convnet import ConvNet
from taskshift.nets.mlp import MLP
from taskshift.nets.online_norm import EPS, OnlineNorm, recurrence
from taskshift.shifts.losses import CrossEntropy
from taskshift.shifts.task import Batch, Task
from taskshift.training import Training

STATE = ("mean", "variance", "u", "v")
FORWARD, BACKWARD = 0.9, 0.8


def made(features, **decays):
    layer = OnlineNorm(features, **({"forward_decay": FORWARD, "backward_decay": BACKWARD} | decays)).double()
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        layer.weight.copy_(1 + 0.3 * torch.randn(features, generator=rng))
        layer.bias.copy_(0.3 * torch.randn(features, generator=rng))
    return layer


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Written:
    """The rules for one example after the other, a channel and a place at a time."""

    def __init__(self, layer):
        self.weight, self.bias = layer.weight.detach(), layer.bias.detach()
        self.mean, self.variance, self.u, self.v = ([float(x) for x in getattr(layer, name)] for name in STATE)

    def __call__(self, inputs, upstream):
        """Outputs and the inputs' gradient, of one example [C, P]."""
        channels, places = inputs.shape
        before = list(zip(self.mean, self.variance, strict=True))
        y = torch.zeros_like(inputs)
        for c, (mean, variance) in enumerate(before):
            y[c] = (inputs[c] - mean) / (variance + EPS) ** 0.5
            own = sum(inputs[c].tolist()) / places
            spread = sum((float(x) - own) ** 2 for x in inputs[c]) / places
            self.variance[c] = FORWARD * variance + (1 - FORWARD) * spread + FORWARD * (1 - FORWARD) * (own - mean) ** 2
            self.mean[c] = FORWARD * mean + (1 - FORWARD) * own
        z = y * self.weight[:, None] + self.bias[:, None]
        size = ((z**2).sum() / (channels * places) + EPS) ** 0.5
        to_z = upstream / size - z * (upstream * z).sum() / (channels * places * size**3)
        gradient = torch.zeros_like(inputs)
        for c, (_, variance) in enumerate(before):
            held = to_z[c] * self.weight[c] - (1 - BACKWARD) * self.v[c] * y[c]
            self.v[c] += float((held * y[c]).sum()) / places
            gradient[c] = held / (variance + EPS) ** 0.5 - (1 - BACKWARD) * self.u[c]
            self.u[c] += float(gradient[c].sum()) / places
        return z / size, gradient


@pytest.mark.parametrize("shape", [(5,), (3, 2, 4)])
def test_it_is_the_rules_written_out(shape):
    """Three batches of four, features and maps."""
    layer = made(shape[0])
    written = Written(layer)
    for number in range(3):
        inputs = (1 + 2 * drawn(4, *shape, seed=number)).requires_grad_()
        upstream = drawn(4, *shape, seed=10 + number)
        outputs = layer(inputs)
        outputs.backward(upstream)
        for at in range(4):
            expected, gradient = written(inputs[at].detach().reshape(shape[0], -1), upstream[at].reshape(shape[0], -1))
            torch.testing.assert_close(outputs[at].reshape(shape[0], -1), expected, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(inputs.grad[at].reshape(shape[0], -1), gradient, rtol=1e-12, atol=1e-12)
        for name in STATE:
            wanted = torch.tensor(getattr(written, name), dtype=torch.float64)
            torch.testing.assert_close(getattr(layer, name), wanted, rtol=1e-12, atol=1e-12)


def test_a_batch_is_its_examples_one_after_the_other():
    together, apart, inputs, upstream = made(5), made(5), drawn(7, 5), drawn(7, 5, seed=1)
    whole = inputs.clone().requires_grad_()
    together(whole).backward(upstream)
    for at in range(7):
        one = inputs[at : at + 1].clone().requires_grad_()
        apart(one).backward(upstream[at : at + 1])
        torch.testing.assert_close(whole.grad[at], one.grad[0], rtol=1e-12, atol=1e-12)
    for name in STATE:
        torch.testing.assert_close(getattr(together, name), getattr(apart, name), rtol=1e-12, atol=1e-12)


def test_an_example_does_not_normalise_itself():
    layer, inputs = made(5), drawn(4, 5)
    before = layer(inputs)
    changed = inputs.clone()
    changed[2] += 100
    after = made(5)(changed)
    torch.testing.assert_close(after[:2], before[:2])
    assert not torch.allclose(after[3], before[3])


def test_recurrences_are_loops():
    for count in (1, 2, 3, 8, 13):
        keeps, adds, now = drawn(count, 3), drawn(count, 3, seed=1), drawn(3, seed=2)
        found = recurrence(now, keeps, adds)
        for at in range(count + 1):
            torch.testing.assert_close(found[at], now, rtol=1e-12, atol=1e-12)
            now = keeps[at] * now + adds[at] if at < count else now


def test_in_the_long_run_gradients_are_orthogonal_to_activations_and_have_mean_zero():
    """Upstream gradients with a mean of 1 and a part along y of 1, of which without control all would remain."""
    layer, count, seen = OnlineNorm(4, forward_decay=0.99, backward_decay=0.9).double(), 8000, []
    inputs = 3 + 2 * drawn(count, 4)
    for start in range(0, count, 16):
        x = inputs[start : start + 16, :, None].clone().requires_grad_()
        y = layer._normalised(x)
        y.backward(1 + y.detach() + drawn(16, 4, 1, seed=start + 1))
        seen.append((x.grad, y.detach()))
    gradient, y = (torch.cat(parts)[count // 2 :, :, 0] for parts in zip(*seen, strict=True))
    error = (gradient.var(dim=0) / len(gradient)).sqrt()  # were examples independent: the control makes it smaller
    assert (gradient.mean(dim=0).abs() < 3 * error).all()
    along = gradient * y
    assert (along.mean(dim=0).abs() < 5 * along.std(dim=0) / len(along) ** 0.5).all()
    assert (layer.mean - 3).abs().max() < 5 * 2 * (0.01 / 1.99) ** 0.5
    assert (layer.variance - 4).abs().max() < 5 * 4 * 2**0.5 * (0.01 / 1.99) ** 0.5


def test_in_eval_mode_it_is_an_affine_map_and_nothing_moves():
    layer = made(5)
    layer(drawn(6, 5)).sum().backward()
    layer.eval()
    before, inputs = {name: getattr(layer, name).clone() for name in STATE}, drawn(6, 5, seed=4).requires_grad_()
    outputs = layer(inputs)
    z = (inputs - before["mean"]) / (before["variance"] + EPS).sqrt() * layer.weight + layer.bias
    torch.testing.assert_close(outputs, z / (z.square().mean(dim=1, keepdim=True) + EPS).sqrt())
    assert torch.autograd.gradcheck(layer, inputs)
    outputs.sum().backward()
    assert all(torch.equal(getattr(layer, name), value) for name, value in before.items())


def test_a_surface_is_of_its_running_statistics_and_leaves_them():
    net = MLP((6,), 3, width=5, norm="online").double()
    inputs, targets = drawn(20, 6), torch.arange(20) % 3
    F.cross_entropy(net(inputs), targets).backward()
    net.eval()
    before = copy.deepcopy(net.state_dict())
    surface = LossSurface(net, F.cross_entropy, [(inputs, targets)])
    step = 1e-6 * torch.randn(surface.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    uphill, downhill = surface.losses(displacements=torch.stack([step, -step])).double()
    slope = surface.gradient(torch.zeros_like(step)) @ step
    torch.testing.assert_close((uphill - downhill) / 2, slope, rtol=1e-5, atol=0)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


# -- as a part of a learner's state -------------------------------------------------------------------------------

NETS = {
    "mlp": (lambda: MLP((1, 4, 4), 3, width=7, norm="online"), (1, 4, 4)),
    "convnet": (lambda: ConvNet((1, 24, 24), 3, channels=(2, 3, 4), width=5, norm="online"), (1, 24, 24)),
}


def training_of(kind, seed=0):
    torch.manual_seed(seed)
    net = NETS[kind][0]().double()
    return Training(Learner(net, torch.optim.SGD), next(batches(kind)), seed=seed)


def batches(kind, seed=0, count=4):
    for number in range(count):
        yield Batch(drawn(6, *NETS[kind][1], seed=100 * seed + number), (torch.arange(6) + number) % 3)


TASK = Task(0, torch.arange(1), torch.arange(1), None, CrossEntropy())


def assert_steps_as_alone(members, learn):
    """`learn(inputs)` gives the states to which programs come, from the same state step by step."""
    inputs = [list(batches(member.kind, number)) for number, member in enumerate(members)]
    for at in range(4):
        before = [checkpoint.cloned(member.state) for member in members]
        learn([of[at] for of in inputs])
        for member, state, of in zip(members, before, inputs, strict=True):
            expected, _ = member.learner.step(state, of[at], TASK.loss)
            for name, value in expected["net"].items():
                torch.testing.assert_close(member.state["net"][name], value, rtol=1e-12, atol=1e-12)
    moved = [value for name, value in members[0].state["net"].items() if name.endswith((".u", ".v"))]
    assert moved
    assert all(value.abs().min() > 0 for value in moved)


@pytest.mark.parametrize(
    ("kind", "compiles"), [("mlp", False), ("convnet", False), pytest.param("mlp", True, marks=pytest.mark.slow)]
)
def test_both_processes_are_recorded(kind, compiles):
    member = training_of(kind)
    member.kind = kind
    assert member.use_programs(TASK, next(batches(kind)), compiles=compiles) == compiles
    assert_steps_as_alone([member], lambda given: member.learn_all(TASK, Batch(*(part[None] for part in given[0]))))


@pytest.mark.parametrize("kind", NETS)
def test_both_processes_are_each_members_own_in_a_block(kind):
    members, shared = [training_of(kind, seed) for seed in range(3)], SharedPrograms(3)
    for member in members:
        member.kind = kind
        member.use_programs(TASK, next(batches(kind)), compiles=False, shared=shared, block=4)

    def learn(given):
        given = {m.lane.number: Batch(*(part[None] for part in one)) for m, one in zip(members, given, strict=True)}
        found = members[0].lane.block.learn({m.lane.number: m.asked(TASK, given[m.lane.number]) for m in members})
        for member in members:
            member.take(found[member.lane.number][0], given[member.lane.number])

    assert_steps_as_alone(members, learn)
