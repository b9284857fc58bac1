"""Every learner of conf/learner: one step against a calculation written out by hand, a stack of members, kills and resumes.

A new yaml is under test at once, and fails until its step is written out in tests/framework/written_steps.py.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from interrupting import Interrupted, interrupt
from runs import TINY, compose, run_in
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch.utils._pytree import tree_flatten, tree_map

from taskshift import checkpoint
from taskshift.compare import differences
from taskshift.config.construct import construct
from taskshift.execution.shared import SharedPrograms
from taskshift.job import Job
from taskshift.learners.gradient import ASAM
from taskshift.learners.learner import Learner
from taskshift.nets.convnet import ConvNet
from taskshift.nets.mlp import MLP
from taskshift.shifts.losses import CrossEntropy
from taskshift.shifts.task import Batch, Task
from taskshift.training import Training
from tests.framework.learning import ActivitySquared, Noise, PowerIteration, Redraw, Tortoise, TowardStart
from tests.framework.written_steps import STEPS, Twin

LEARNERS = sorted(path.stem for path in Path("conf/learner").glob("*.yaml") if path.stem != "own")
NUM_STEPS, NUM_CLASSES = 4, 3


def mlp(seed):
    torch.manual_seed(seed)
    return MLP((1, 4, 4), NUM_CLASSES, depth=2, width=7, activation="tanh").double()


def convnet(seed):
    torch.manual_seed(seed)
    return ConvNet((1, 24, 24), NUM_CLASSES, channels=(2, 3, 4), width=5, norm="batch").double()


NETS = {"mlp": (mlp, (1, 4, 4)), "convnet with batch norm": (convnet, (1, 24, 24))}


def batches(shape, member=0, count=NUM_STEPS, size=6):
    rng = torch.Generator().manual_seed(100 + member)
    for _ in range(count):
        inputs = torch.randn(size, *shape, generator=rng, dtype=torch.float64)
        yield Batch(inputs, torch.randint(NUM_CLASSES, (size,), generator=rng))


def training_of(name, make, shape, seed=0, words=()):
    net = make(seed)
    learner = construct(compose(f"learner={name}", *words)["learner"], Learner, where="learner", net=net)
    (example,) = batches(shape, count=1)
    example = Batch(example.inputs.to(next(net.parameters()).dtype), example.targets)
    return Training(learner, example, seed=seed, make_net=lambda number: make(number % 2**31))


# -- the same steps, written out ---------------------------------------------------------------------------------


def hand_written(net, inputs, targets):
    """The cross-entropy's gradient of a tanh MLP by the chain rule, without autograd."""
    one, two, head = net.hidden.linear_1, net.hidden.linear_2, net.head
    x = inputs.flatten(1)
    a = torch.tanh(x @ one.weight.T + one.bias)
    b = torch.tanh(a @ two.weight.T + two.bias)
    logits = b @ head.weight.T + head.bias
    shares = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    d_logits = (shares - F.one_hot(targets, NUM_CLASSES)) / len(targets)
    d_b = d_logits @ head.weight * (1 - b**2)
    d_a = d_b @ two.weight * (1 - a**2)
    found = [d_a.T @ x, d_a.sum(0), d_b.T @ a, d_b.sum(0), d_logits.T @ b, d_logits.sum(0)]
    return [gradient.detach() for gradient in found]


def by_autograd(net, inputs, targets):
    """torch's own backward pass, which moves the running statistics too."""
    net.zero_grad()
    F.cross_entropy(net(inputs), targets).backward()
    return [parameter.grad.clone() for parameter in net.parameters()]


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("kind", NETS)
def test_a_step_equals_the_calculation_by_hand(name, kind):
    make, shape = NETS[kind]
    training, task_loss = training_of(name, make, shape), CrossEntropy()
    twin = Twin(make(0), hand_written if kind == "mlp" else by_autograd)
    for number, batch in enumerate(batches(shape)):
        draws = twin.draws = training.draws.at(number, training.state["taken"])
        measured = STEPS[name](twin, batch)
        training.state, _ = training.learner.step(
            training.state, batch, task_loss, draws, acting=training.learner.acting(training.num_steps)
        )
        training.hide()
        state, expected = training.net.state_dict(), measured.state_dict()
        assert [key for key in state if not key.startswith("injection.")] == list(expected)
        for key, theirs in expected.items():
            torch.testing.assert_close(state[key], theirs, rtol=1e-12, atol=1e-12, msg=lambda words, key=key: f"{key}: {words}")


# -- a program ----------------------------------------------------------------------------------------------------


def by_program(training, shape, *, compiles, size=6):
    """The same training, its steps carried out by programs."""
    task = Task(0, torch.arange(1), torch.arange(1), None, CrossEntropy())
    (batch,) = batches(shape, count=1, size=size)
    dtype = training.state["net"]["head.weight"].dtype
    batch = Batch(batch.inputs.to(dtype), batch.targets)
    assert training.use_programs(task, batch, compiles=compiles) == compiles
    return training, task


COMPILED = ("backprop", "hare_and_tortoise", "sam", "spectral_regularization", "upgd")
"""Learners that `make test-slow` compiles on the MLP; the first also on the convnet."""


def programs():
    """Every learner replayed and compiled, in both precisions; most compilations are for `make test-all`."""
    for name, kind, dtype in product(LEARNERS, NETS, (torch.float64, torch.float32)):
        of = f"{name}-{kind}-{str(dtype).removeprefix('torch.')}"
        yield pytest.param(name, kind, dtype, False, id=f"{of}-replay", marks=[pytest.mark.slow] if kind != "mlp" else [])
        if kind != "mlp" and dtype == torch.float32:
            continue  # norms over six examples round by some 1e-6, eager as well: see the next test
        mark = pytest.mark.slow if name in COMPILED and (kind == "mlp" or name == COMPILED[0]) else pytest.mark.exhaustive
        yield pytest.param(name, kind, dtype, True, id=f"{of}-compiled", marks=mark)


@pytest.mark.parametrize(("name", "kind", "dtype", "compiles"), list(programs()))
def test_a_program_steps_as_the_learner_does(name, kind, dtype, compiles):
    """From the same state, step by step."""
    make, shape = NETS[kind]
    training = training_of(name, lambda seed: make(seed).to(dtype), shape)
    training, task = by_program(training, shape, compiles=compiles)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    for number, (inputs, targets) in enumerate(batches(shape)):
        batch, before = Batch(inputs.to(dtype), targets), checkpoint.cloned(training.state)
        draws, acting = training.draws.at(number, before["taken"]), training.learner.acting(number)
        expected, step = training.learner.step(before, batch, task.loss, draws, acting=acting)
        steps = training.learn_all(task, Batch(batch.inputs[None], targets[None]))
        torch.testing.assert_close(steps.losses[0], step.loss, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(steps.outputs, step.outputs, rtol=tolerance, atol=tolerance)
        assert_same_state(training.state, expected, tolerance)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == COMPILED[0] else pytest.mark.exhaustive) for name in LEARNERS]
)
def test_a_compiled_convnet_rounds_no_worse_than_its_eager_step(name):
    """In float32, both held against the float64 step from the same state: two orders of the same sums round alike."""
    make, shape = NETS["convnet with batch norm"]
    exact = training_of(name, make, shape)
    training, task = by_program(training_of(name, lambda seed: make(seed).float(), shape), shape, compiles=True)
    for number, (inputs, targets) in enumerate(batches(shape)):
        batch, before = Batch(inputs.float(), targets), checkpoint.cloned(training.state)
        draws, acting = training.draws.at(number, before["taken"]), training.learner.acting(number)
        eager, _ = training.learner.step(before, batch, task.loss, draws, acting=acting)
        given = Batch(batch.inputs.double(), targets)
        expected, _ = exact.learner.step(in_float64(before), given, task.loss, in_float64(draws), acting=acting)
        training.learn_all(task, Batch(batch.inputs[None], targets[None]))
        assert largest_error(training.state, expected) <= 2 * largest_error(eager, expected) + 1e-6


def in_float64(state):
    return tree_map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor, dict(state))


def largest_error(ours, exact):
    pairs = zip(tree_flatten(dict(ours))[0], tree_flatten(dict(exact))[0], strict=True)
    return max((one.double() - other.double()).abs().max().item() for one, other in pairs)


def assert_same_state(ours, theirs, tolerance, at="state"):
    assert type(ours) is type(theirs) or isinstance(ours, dict)
    if isinstance(ours, torch.Tensor):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance, msg=lambda words: f"{at}: {words}")
        return
    assert ours.keys() == theirs.keys(), at
    for key in ours:
        assert_same_state(ours[key], theirs[key], tolerance, f"{at}.{key}")


# -- a stack ------------------------------------------------------------------------------------------------------


def stacks():
    """Every learner replayed, two compiled; the MLP's replays are quick."""
    for name, kind in product(LEARNERS, NETS):
        yield pytest.param(name, kind, False, id=f"{name}-{kind}-replay", marks=[pytest.mark.slow] if kind != "mlp" else [])
    for name in ("backprop", "cbp"):
        yield pytest.param(name, "mlp", True, id=f"{name}-mlp-compiled", marks=pytest.mark.slow)


@pytest.mark.parametrize(("name", "kind", "compiles"), list(stacks()))
def test_a_block_steps_as_its_members_do(name, kind, compiles):
    """Three members of other seeds and rates in a block of four, from the same state step by step; one sits a step out."""
    make, shape = NETS[kind]
    assert_a_block_steps_as_its_members_do(
        [training_of(name, make, shape, seed) for seed in range(3)], shape, num_steps=NUM_STEPS, compiles=compiles
    )


QUICK = {
    "cbp": {"replacement_rate": 0.3, "maturity_threshold": 2},
    **dict.fromkeys(("rr_cbp", "rr_cbp2", "rr_cbp_e2"), {"units.replacement_rate": 0.3, "units.maturity_threshold": 2}),
    "ccbp": {"rate": 0.3, "every": 2},
    "redo": {"tau": 1.0, "every": 3},  # at least the least active of each layer
    "snr": {"eta": 0.4, "window": 2, "shortest": 1, "longest": 2},
}
"""What makes a learner that begins units anew do so within a few steps."""


def acting_stacks():
    """One learner on the MLP; the others, and all on the convnet, in the slow tests."""
    for name, kind in product(QUICK, NETS):
        quick = kind == "mlp" and name == "redo"  # cbp: see tests/framework/test_cbp.py
        yield pytest.param(name, kind, id=f"{name}-{kind}", marks=[] if quick else [pytest.mark.slow])


@pytest.mark.parametrize(("name", "kind"), list(acting_stacks()))
def test_a_block_begins_units_anew_as_its_members_do(name, kind):
    """Each member of its own units, by its own draws; the one that sits a step out acts a step later."""
    make, shape = NETS[kind]
    words = [f"learner.interventions.{name}.{key}={value}" for key, value in QUICK[name].items()]
    members = [training_of(name, make, shape, seed, words) for seed in range(3)]
    # a row made orthogonal to others is what is left of a draw, which magnifies rounding: after 8 steps of rr_cbp_e2 up to 2e-10
    told = assert_a_block_steps_as_its_members_do(members, shape, num_steps=8, tolerance=1e-9 if name.startswith("rr") else 1e-12)
    counts = [[step.get(f"{name}/replaced", 0) for step in steps] for steps in told]
    assert [len(steps) for steps in counts] == [8, 7, 8]
    assert all(sum(steps) > 0 for steps in counts), "each of them acts"


def assert_a_block_steps_as_its_members_do(members, shape, *, num_steps, compiles=False, tolerance=1e-12):
    """Returns what the parts of each member told, step by step."""
    shared, told = SharedPrograms(3), [[] for _ in members]
    task, inputs = (
        Task(0, torch.arange(1), torch.arange(1), None, CrossEntropy()),
        [list(batches(shape, seed, num_steps)) for seed in range(3)],
    )
    for number, member in enumerate(members):
        member.state["settings"]["optimizer"]["lr"].mul_(1 + number)
        assert member.use_programs(task, inputs[0][0], compiles=compiles, shared=shared, block=4) == compiles
    block = members[0].lane.block
    assert all(member.lane.block is block for member in members)
    for at in range(num_steps):
        stepping = members if at != 1 else [members[0], members[2]]
        before = [checkpoint.cloned(member.state) for member in members]
        given = {member.lane.number: Batch(*(part[None] for part in inputs[member.lane.number][at])) for member in stepping}
        found = {}
        for together in at_one_step(stepping):
            found |= block.learn({member.lane.number: member.asked(task, given[member.lane.number]) for member in together})
        for number, member in enumerate(members):
            if member not in stepping:
                assert checkpoint.first_difference(checkpoint.cloned(member.state), before[number]) is None
                continue
            step, learner = member.num_steps, member.learner
            draws, acting = member.draws.at(step, before[number]["taken"]), learner.acting(step)
            expected, left = learner.step(before[number], inputs[number][at], task.loss, draws, acting=acting)
            state, steps = found[number]
            member.take(state, given[number])
            assert_same_state(member.state, expected, tolerance)
            torch.testing.assert_close(steps.losses[0], left.loss, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(steps.outputs, left.outputs, rtol=1e-12, atol=1e-12)
            assert {key: value.item() for key, value in steps.numbers.items()} == pytest.approx(
                {key: value.item() for key, value in left.numbers.items()}, rel=1e-12
            )
            told[number].append({key: value.item() for key, value in left.numbers.items()})
    return told


def at_one_step(members):
    """Groups that have come equally far: parts act by the number of the step, which a block's program is made for."""
    steps = sorted({member.num_steps for member in members})
    return [[member for member in members if member.num_steps == step] for step in steps]


def test_parts_that_act_draw_read_and_remember_stack_as_they_are():
    """Each part that later learners will need something of, in one learner, recorded over three members."""

    def member(seed):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 7), nn.Tanh(), nn.Linear(7, NUM_CLASSES)).double()
        learner = Learner(
            net,
            torch.optim.Adam,
            gradient=ASAM(),
            regularizers={"toward": TowardStart(0.1), "activity": ActivitySquared(), "power": PowerIteration()},
            interventions={"redraw": Redraw(), "noise": Noise(), "tortoise": Tortoise()},
            gradient_clip=0.5,
        )
        return Training(learner, next(batches((1, 4, 4), count=1)), seed=seed, make_net=lambda number: drawn(seed + number))

    def drawn(seed):
        torch.manual_seed(seed % 2**31)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 7), nn.Tanh(), nn.Linear(7, NUM_CLASSES)).double()

    members, loss = [member(seed) for seed in range(3)], CrossEntropy()
    learner, inputs = members[0].learner, [list(batches((1, 4, 4), number)) for number in range(3)]

    def step(state, batch, draws):
        state, told = learner.step(state, Batch(*batch), loss, draws)
        return state, told.numbers

    def together(of):
        return tree_map(lambda *tensors: torch.stack(tensors), *of)

    stacked, program = together([dict(one.state) for one in members]), None
    for at in range(NUM_STEPS):
        draws = [one.draws.at(at, one.state["taken"]) for one in members]
        given = together([tuple(inputs[number][at]) for number in range(3)]), together(draws)
        program = program or make_fx(torch.vmap(step))(stacked, *given)
        stacked, numbers = program(stacked, *given)
        for number, one in enumerate(members):
            one.state, told = one.learner.step(one.state, inputs[number][at], loss, draws[number])
            own = tree_map(lambda tensor, number=number: tensor[number], (stacked, numbers))
            for ours, theirs in zip(tree_flatten(own)[0], tree_flatten((dict(one.state), dict(told.numbers)))[0], strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert stacked["taken"]["redraw"]["rows"].tolist() == [NUM_STEPS] * 3


# -- resuming -----------------------------------------------------------------------------------------------------


def cut_off():
    """Every learner eager; replayed, those with memory and draws of their own are tried each time."""
    for name in LEARNERS:
        yield pytest.param(name, "eager", id=f"{name}-eager")
        quick = name in ("hare_and_tortoise", "upgd")
        yield pytest.param(name, "replay", id=f"{name}-replay", marks=[] if quick else [pytest.mark.slow])
    yield pytest.param("upgd", "compiled", id="upgd-compiled", marks=pytest.mark.slow)


@pytest.mark.parametrize(("name", "execution"), list(cut_off()))
def test_cut_off_anywhere_it_ends_with_the_same_bits(name, execution, tmp_path, monkeypatch):
    off = [f"lla.enable_{one}=false" for one in ("planes", "spectrum", "sam", "rank", "units", "plasticity", "coupling")]
    config = compose(
        *TINY, f"learner={name}", "run_name=one", "checkpoints.every_seconds=0", "net.norm=batch", "use_wandb=false", *off
    ) | {"execution": execution}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    reference = run_in(whole, config)
    for count in (1, 3, 8, 14) if execution == "eager" else (1, 2, 4, 4):  # between chunks, of which there are fewer
        with monkeypatch.context() as patch:
            interrupt(patch, Job, "save", count)
            with pytest.raises(Interrupted):
                run_in(cut, config)
    assert differences(run_in(cut, config), reference) == []


def test_every_number_of_a_learners_state_is_a_tensor():
    """So that a recording, a stack and a checkpoint need no special case."""
    for name in LEARNERS:
        training = training_of(name, mlp, (1, 4, 4))
        assert all(isinstance(leaf, torch.Tensor) for leaf in tree_flatten(dict(training.state))[0])
        assert not any(leaf.requires_grad for leaf in tree_flatten(dict(training.state))[0])
        assert isinstance(training.net, nn.Module)
        assert checkpoint.first_difference(checkpoint.cloned(training.state), checkpoint.cloned(training.state)) is None
