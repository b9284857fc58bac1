"""Pure optimizer rules against torch's own optimizers, step for step in float64."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.optim import SGD, Adam, AdamW, RMSprop

from taskshift.learners.part import Context, Subject, setting
from taskshift.learners.rules.adam import Adam as AdamRule
from taskshift.learners.rules.muon import Muon as MuonRule
from taskshift.learners.rules.muon import orthogonalised
from taskshift.learners.rules.torch_rules import pure_rule

CASES = {
    "sgd": partial(SGD, lr=0.05),
    "sgd weight decay": partial(SGD, lr=0.05, weight_decay=0.1),
    "sgd maximize": partial(SGD, lr=1e-3, maximize=True),
    "momentum": partial(SGD, lr=0.05, momentum=0.9),
    "momentum dampening": partial(SGD, lr=0.05, momentum=0.9, dampening=0.3, weight_decay=0.01),
    "nesterov": partial(SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": partial(Adam, lr=0.01),
    "adam weight decay": partial(Adam, lr=0.01, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-4),
    "adam without memory": partial(Adam, lr=0.01, betas=(0.0, 0.9)),
    "adam amsgrad": partial(Adam, lr=0.01, amsgrad=True),
    "adam maximize": partial(Adam, lr=0.001, maximize=True),
    "adamw": partial(AdamW, lr=0.01, weight_decay=0.1),
    "adamw amsgrad": partial(AdamW, lr=0.01, weight_decay=0.1, amsgrad=True),
    "rmsprop": partial(RMSprop, lr=0.01),
    "rmsprop centered": partial(RMSprop, lr=0.01, centered=True, weight_decay=0.1, alpha=0.9, eps=1e-4),
    "rmsprop momentum": partial(RMSprop, lr=0.01, momentum=0.9, maximize=False),
    "rmsprop all": partial(RMSprop, lr=0.001, momentum=0.5, centered=True, maximize=True),
}
NUM_STEPS = 300


def first_parameters(dtype=torch.float64):
    rng = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(*shape, generator=rng, dtype=torch.float64).to(dtype) for name, shape in (("a", (5, 3)), ("b", (7,)))
    }


def slope(parameters, number):
    """Of a wobbling valley, noise of the step with it, and one entry whose gradient is zero for a while."""
    rng = torch.Generator().manual_seed(number)
    found = {
        n: (p.double().sin() + 0.3 * torch.randn(p.shape, generator=rng, dtype=torch.float64)).to(p)
        for n, p in parameters.items()
    }
    if number < 40:
        found["b"][0] = 0.0
    return found


def stepped(rule, settings, parameters, slots, gradients):
    subject = rule.step(Subject(parameters, slots, {}), Context(settings, gradients=gradients))
    return subject.net, subject.slots


def settings_of(rule):
    return {name: setting(value, torch.device("cpu")) for name, value in rule.settings().items()}


@pytest.mark.parametrize("name", CASES)
def test_a_group_has_the_settings_where_torch_keeps_them(name):
    theirs, plain = (make([torch.nn.Parameter(torch.ones(2))]) for make in (CASES[name], partial(CASES[name].func, lr=0.5)))
    [group], rule = theirs.param_groups, pure_rule(theirs)
    moved = rule.group_of(plain.param_groups[0], rule.settings())
    numbers = {key for key, value in group.items() if isinstance(value, int | float | tuple) and not isinstance(value, bool)}
    assert {"lr", "weight_decay"} <= numbers
    assert {key: moved[key] for key in numbers} == {key: group[key] for key in numbers}
    assert moved.keys() == group.keys()
    assert rule.settings_of(moved) == rule.settings()


@pytest.mark.parametrize("name", CASES)
def test_a_rule_steps_as_torch_does(name):
    ours = first_parameters()
    leaves = {key: torch.nn.Parameter(value.clone()) for key, value in ours.items()}
    optimizer = CASES[name](list(leaves.values()))
    rule = pure_rule(optimizer)
    slots, settings = rule.first_slots(ours), settings_of(rule)
    for number in range(NUM_STEPS):
        gradients = slope(leaves, number)
        for key, leaf in leaves.items():
            leaf.grad = gradients[key]
        optimizer.step()
        before = {key: value.clone() for key, value in ours.items()}
        new, slots = stepped(rule, settings, ours, slots, slope(ours, number))
        assert all(torch.equal(before[key], ours[key]) for key in ours), "nothing is written in place"
        ours = new
        for key, leaf in leaves.items():
            torch.testing.assert_close(ours[key], leaf.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_its_slots_are_torchs_state(name):
    """What evaluators read of torch's optimizer, they read of the rule."""
    ours = first_parameters()
    leaves = {key: torch.nn.Parameter(value.clone()) for key, value in ours.items()}
    optimizer = CASES[name](list(leaves.values()))
    rule = pure_rule(optimizer)
    slots, settings = rule.first_slots(ours), settings_of(rule)
    for number in range(3):
        for key, gradient in slope(leaves, number).items():
            leaves[key].grad = gradient
        optimizer.step()
        ours, slots = stepped(rule, settings, ours, slots, slope(ours, number))
    found = rule.torch_state(slots)
    for key, leaf in leaves.items():
        known = {slot: value for slot, value in optimizer.state[leaf].items() if value is not None}
        own = found.get(key, {})
        assert own.keys() == known.keys() - ({"step"} if isinstance(optimizer, RMSprop) else set())
        for slot, value in own.items():
            torch.testing.assert_close(value.double(), known[slot].double(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_float32_stays_near_torch_for_a_step(name):
    """A step from the same state: the rounding of one step, not of three hundred."""
    ours = first_parameters(torch.float32)
    leaves = {key: torch.nn.Parameter(value.clone()) for key, value in ours.items()}
    optimizer = CASES[name](list(leaves.values()))
    rule = pure_rule(optimizer)
    slots, settings = rule.first_slots(ours), settings_of(rule)
    for number in range(20):
        gradients = slope(leaves, number)
        for key, leaf in leaves.items():
            leaf.grad = gradients[key].clone()
        at = {key: leaf.detach().clone() for key, leaf in leaves.items()}
        optimizer.step()
        ours, slots = stepped(rule, settings, at, slots, gradients)
        for key, leaf in leaves.items():
            torch.testing.assert_close(ours[key], leaf.detach(), rtol=1e-6, atol=1e-6)


def test_an_element_that_is_drawn_anew_begins_its_corrections_anew():
    """After a reset of one row it steps as a new Adam does, the others as the old one goes on."""
    rule, parameters = AdamRule(0.01), first_parameters()
    settings, slots = settings_of(rule), rule.first_slots(parameters)
    for number in range(50):
        parameters, slots = stepped(rule, settings, parameters, slots, slope(parameters, number))
    assert rule.torch_state(slots) is not None
    reset = {slot: {**of, "a": of["a"].index_fill(0, torch.tensor([2]), 0.0)} for slot, of in slots.items()}
    gradients = slope(parameters, 50)
    after, kept = stepped(rule, settings, parameters, reset, gradients)
    anew, _ = stepped(rule, settings, parameters, rule.first_slots(parameters), gradients)
    on, _ = stepped(rule, settings, parameters, slots, gradients)
    assert torch.equal(after["a"][2], anew["a"][2])
    assert torch.equal(after["a"][[0, 1, 3, 4]], on["a"][[0, 1, 3, 4]])
    assert not torch.equal(on["a"][2], anew["a"][2])
    assert rule.torch_state(kept) is None, "no optimizer of torch's stands so"


def test_a_dampened_buffer_that_is_reset_takes_its_first_gradient_whole():
    parameters = first_parameters()
    rule = pure_rule(SGD([torch.nn.Parameter(parameters["a"])], lr=0.1, momentum=0.9, dampening=0.5))
    settings, slots = settings_of(rule), rule.first_slots(parameters)
    for number in range(3):
        gradients = slope(parameters, number)
        parameters, slots = stepped(rule, settings, parameters, slots, gradients)
        if number == 0:
            assert torch.equal(slots["momentum_buffer"]["a"], gradients["a"])
    reset = {slot: {key: torch.zeros_like(value) for key, value in of.items()} for slot, of in slots.items()}
    _, slots = stepped(rule, settings, parameters, reset, gradients)
    assert torch.equal(slots["momentum_buffer"]["a"], gradients["a"])


def test_a_subclass_and_several_groups_are_torchs_own_affair():
    class Own(SGD):
        pass

    leaves = [torch.nn.Parameter(value) for value in first_parameters().values()]
    assert pure_rule(Own(leaves, lr=0.1)) is None
    assert pure_rule(SGD([{"params": leaves[:1]}, {"params": leaves[1:], "lr": 0.2}], lr=0.1)) is None
    assert pure_rule(torch.optim.Adagrad(leaves)) is None


# -- Muon


@pytest.mark.parametrize("options", [{}, {"nesterov": False, "weight_decay": 0.1}, {"scale": "match_rms_adamw", "iterations": 3}])
def test_muon_steps_as_torchs_muon_and_adamw_do(options):
    """A kernel steps as the matrix [units, fan-in] that it is; torch's own takes no kernel."""
    draw = torch.Generator().manual_seed(0)
    shapes = {"wide": (3, 8), "tall": (9, 4), "kernel": (6, 2, 3, 3), "vector": (5,)}
    ours = {name: torch.randn(shape, generator=draw, dtype=torch.float64) for name, shape in shapes.items()}
    leaves = {name: torch.nn.Parameter(p.clone().flatten(1) if p.dim() > 1 else p.clone()) for name, p in ours.items()}
    decay, matrices = options.get("weight_decay", 0.0), [leaf for leaf in leaves.values() if leaf.dim() > 1]
    torchs = [
        torch.optim.Muon(
            matrices, lr=0.02, weight_decay=decay, nesterov=options.get("nesterov", True), ns_steps=options.get("iterations", 5),
            adjust_lr_fn=options.get("scale", "original"),
        ),
        AdamW([leaves["vector"]], lr=0.02 * 0.1, weight_decay=decay),
    ]  # fmt: skip
    rule = MuonRule(lr=0.02, **options)
    slots, settings = rule.first_slots(ours), settings_of(rule)
    for _ in range(20):
        gradients = {name: torch.randn(p.shape, generator=draw, dtype=torch.float64) for name, p in ours.items()}
        for name, leaf in leaves.items():
            leaf.grad = gradients[name].view_as(leaf).clone()
        for optimizer in torchs:
            optimizer.step()
        ours, slots = stepped(rule, settings, ours, slots, gradients)
        for name, leaf in leaves.items():
            torch.testing.assert_close(ours[name].view_as(leaf), leaf.detach(), rtol=1e-12, atol=1e-12)


def test_muon_makes_directions_nearly_orthogonal():
    draw = torch.Generator().manual_seed(0)
    for shape in ((6, 20), (20, 6)):
        matrix = torch.randn(shape, generator=draw, dtype=torch.float64)
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        found = orthogonalised(matrix, 5).double()
        assert torch.linalg.svdvals(found).sub(1).abs().max() < 0.35  # Jordan 2024: 0.7 … 1.2 after five iterations
        assert (found * (left @ right)).sum() / found.norm() / (left @ right).norm() > 0.97


def test_nonsense_of_muon_is_one_sentence():
    with pytest.raises(ValueError, match="scale='none' is not known; choose one of original, match_rms_adamw"):
        MuonRule(scale="none")
