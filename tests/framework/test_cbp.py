"""Continual backprop against its formulas written out by hand, and against the faults of published code."""

from __future__ import annotations

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch.utils._pytree import tree_flatten, tree_map

from taskshift.learners.cbp import MOST_PAIRED, ContinualBackprop, ranks
from taskshift.learners.gradient import SAM
from taskshift.learners.regularizers import L2
from taskshift.nets.convnet import ConvNet
from taskshift.nets.mlp import MLP
from taskshift.nets.resnet18 import ResNet18
from taskshift.nets.vgg16 import VGG16
from taskshift.randomness import seed_from
from taskshift.shifts.task import Batch
from tests.framework.units_by_hand import (
    GROUPS,
    SEED,
    Rows,
    batches,
    begin_anew,
    made,
    standing_still,
    step_of,
    training,
)

UTILITIES = (
    "contribution",
    "zero_contribution",
    "adaptable_contribution",
    "weight",
    "adaptation",
    "feature_by_input",
    "random",
)


class ByHand:
    """§ the formulas, unit by unit, in numpy."""

    def __init__(self, *, utility, rate, maturity, decay, accumulate):
        self.utility, self.rate, self.maturity, self.decay, self.accumulate = utility, rate, maturity, decay, accumulate
        self.memory = {
            name: {"age": np.zeros(n), "utility": np.zeros(n), "mean": np.zeros((r, n)), "owed": 0.0}
            for name, n, r in (("a", 6, 2), ("c", 5, 1))
        }
        self.rows = Rows("cbp")

    def mean_utility(self, group, unit, net, values):
        makers, _, _, consumers = GROUPS[group]
        w_in = np.mean(np.concatenate([np.abs(net[name][unit]).ravel() for name in makers]))
        w_out = [np.abs(net[name][:, unit]) for name in consumers]
        number = sum(len(w) for w in w_out)
        f_hat = self.memory[group]["mean"][:, unit] / (1 - self.decay ** self.memory[group]["age"][unit])
        h = [values[name][:, unit] for name in consumers]
        apart = [np.mean([abs(v - f) for v in column]) for column, f in zip(h, f_hat, strict=True)]
        size = [np.mean([abs(v) for v in column]) for column in h]
        contribution = sum(s * w.sum() for s, w in zip(size, w_out, strict=True)) / number
        zero = sum(s * w.sum() for s, w in zip(apart, w_out, strict=True)) / number
        return {
            "contribution": contribution,
            "zero_contribution": zero,
            "adaptable_contribution": zero / w_in,
            "weight": sum(w.sum() for w in w_out) / number,
            "adaptation": 1 / w_in,
            "feature_by_input": np.mean(apart) / w_in,
            "random": 0.0,
        }[self.utility]

    def chosen(self, number, group, net, values, draws):
        memory, consumers = self.memory[group], GROUPS[group][3]
        memory["age"] = memory["age"] + 1
        for reading, name in enumerate(consumers):
            for unit in range(len(memory["age"])):
                memory["mean"][reading, unit] *= self.decay
                memory["mean"][reading, unit] += (1 - self.decay) * np.mean(values[name][:, unit])
        ranks = []
        for unit, age in enumerate(memory["age"]):
            y = self.mean_utility(group, unit, net, values)
            memory["utility"][unit] = self.decay * memory["utility"][unit] + (1 - self.decay) * y
            corrected = memory["utility"][unit] / (1 - self.decay**age)
            corrected = float(draws[f"utility of {group}"][unit]) if self.utility == "random" else corrected
            if age > self.maturity:
                ranks.append((corrected, unit))
        due = self.rate * len(ranks) + (memory["owed"] if self.accumulate else float(draws["lots"][number]))
        memory["owed"] = due - math.floor(due)
        return [unit for _, unit in sorted(ranks)[: math.floor(due)]]

    def act(self, net, slots, values, draws):
        """Change net and slots in place; how many units were replaced."""
        chosen = {group: self.chosen(number, group, net, values, draws) for number, group in enumerate(GROUPS)}
        for group, units in chosen.items():
            begin_anew(group, units, net, slots, self.rows)
            for key in ("age", "utility", "mean"):
                self.memory[group][key][..., units] = 0
        return sum(map(len, chosen.values()))


@pytest.mark.parametrize("accumulate", [True, False])
@pytest.mark.parametrize("utility", UTILITIES)
def test_a_step_equals_the_formulas_written_out(utility, accumulate):
    settings = {"decay": 0.8, "utility": utility, "accumulate": accumulate}
    part = ContinualBackprop(0.35, 3, **settings)
    ours, plain = training(made, part), training(made, None)
    hand, counts = ByHand(utility=utility, rate=0.35, maturity=3, decay=0.8, accumulate=accumulate), []
    for at, batch in enumerate(batches(14)):
        ours.learner.forward(ours.state["net"], batch.inputs)
        twin = made(0)
        twin.load_state_dict(ours.state["net"])
        values = {name: value.detach().numpy() for name, value in twin.values(batch.inputs).items()}
        before = {key: ours.state[key] for key in ("net", "slots")}
        stepped, _ = plain.learner.step({**plain.state, **before}, batch, F.cross_entropy)
        net = {name: tensor.numpy().copy() for name, tensor in stepped["net"].items()}
        slots = {slot: {name: t.numpy().copy() for name, t in of.items()} for slot, of in stepped["slots"].items()}
        (state, told), draws = step_of(ours, batch, at)
        counts.append(hand.act(net, slots, values, draws.get("cbp", {})))
        ours.state = state
        assert told.numbers["cbp/replaced"] == counts[-1]
        for name, value in net.items():
            np.testing.assert_allclose(state["net"][name].numpy(), value, rtol=1e-12, atol=1e-13, err_msg=f"{at} {name}")
        for slot, of in slots.items():
            for name, value in of.items():
                np.testing.assert_allclose(
                    state["slots"][slot][name].numpy(), value, rtol=1e-12, atol=1e-13, err_msg=f"{slot} {name}"
                )
        for group, memory in hand.memory.items():
            for key, value in memory.items():
                if accumulate or key != "owed":
                    np.testing.assert_allclose(state["parts"]["cbp"][group][key].numpy(), value, rtol=1e-12, atol=1e-13)
    assert 0 in counts
    assert sum(counts) > 5


# -- faults of published code ---------------------------------------------------------------------------------------


def linear_net(seed):
    torch.manual_seed(seed % 2**31)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()


def all_at_once(**given):
    """Every unit older than two steps begins anew."""
    return ContinualBackprop(1.0, 2, 0.9, **given)


def test_transferred_bias_keeps_the_function_where_units_are_constant():
    """In the reference code the mean activity is zeroed before it is read: its correction is always 0."""
    batch = Batch(torch.ones(5, 4, dtype=torch.float64), torch.zeros(5, dtype=torch.int64))
    for transfer in (True, False):
        one = training(linear_net, all_at_once(transfer_bias=transfer), optimizer=standing_still)
        before = one.net(batch.inputs)
        for at in range(3):
            (one.state, told), _ = step_of(one, batch, at)
        assert told.numbers["cbp/replaced"] == 6
        one.hide()
        assert torch.allclose(one.net(batch.inputs), before, rtol=1e-12) is transfer
        assert one.state["net"]["2.weight"].abs().max() == 0


def test_transferred_bias_goes_into_a_running_mean_where_there_is_no_bias():
    def make(seed):
        torch.manual_seed(seed % 2**31)
        layers = [nn.Conv2d(1, 3, 1), nn.Tanh(), nn.Conv2d(3, 3, 1, groups=3, bias=False), nn.BatchNorm2d(3, momentum=1.0)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(12, 2)).double()

    batch = Batch(torch.ones(5, 1, 2, 2, dtype=torch.float64), torch.zeros(5, dtype=torch.int64))
    part = all_at_once(transfer_bias=True)
    one = training(make, part, optimizer=standing_still, shape=(1, 2, 2))
    part.groups = tuple(group for group in part.groups if group.name == "0")  # the depthwise units stay
    one.state["parts"]["cbp"] = {"0": one.state["parts"]["cbp"]["0"]}
    for at in range(3):
        before = {name: tensor.clone() for name, tensor in one.state["net"].items()}
        (one.state, told), _ = step_of(one, batch, at)
    assert told.numbers["cbp/replaced"] == 3
    given = before["2.weight"].flatten() * torch.tanh(before["0.weight"].flatten() + before["0.bias"])
    assert given.abs().min() > 1e-2  # the norm's running mean before: its momentum is 1
    assert one.state["net"]["3.running_mean"].abs().max() < 1e-12


def test_all_but_the_units_replaced_learns_as_without():
    """The reference layer resets in a backward hook, and the gradients below it come out wrong."""
    ours, plain = training(made, ContinualBackprop(0.15, 0, 0.9)), training(made, None)
    batch = next(batches(1))
    (state, told), _ = step_of(ours, batch, 0)
    other, _ = plain.learner.step(plain.state, batch, F.cross_entropy)
    assert told.numbers["cbp/replaced"] == 0
    for name, tensor in other["net"].items():
        assert torch.equal(tensor, state["net"][name]), name


def test_a_new_units_first_step_is_adams_first_step():
    """The reference resets the first moment alone, or neither: the count of steps stays, and the first update is far off."""
    lr = 1e-3
    one = training(linear_net, all_at_once(), optimizer=lambda parameters: torch.optim.Adam(parameters, lr=lr, eps=1e-30))
    given = list(batches(4))
    for at, batch in enumerate(given[:3]):
        (one.state, _), _ = step_of(one, batch, at)
    assert all(
        float(of[name].abs().max()) == 0 for of in one.state["slots"].values() for name in ("0.weight", "0.bias", "2.weight")
    )
    before = one.state["net"]
    (after, _), _ = step_of(one, given[3], 3)
    moved = (after["net"]["2.weight"] - before["2.weight"]).abs()
    active = F.relu(given[3].inputs @ before["0.weight"].T + before["0.bias"]).sum(dim=0) > 0
    torch.testing.assert_close(moved[:, active], torch.full_like(moved[:, active], lr), rtol=1e-9, atol=0)


def test_a_young_unit_is_not_taken_for_a_useless_one():
    """Ranked by u, which is not yet grown up, units would be replaced again and again."""
    part = ContinualBackprop(0.2, 1, 0.99, utility="weight")
    one = training(linear_net, part, optimizer=standing_still)
    memory = one.state["parts"]["cbp"]["0"]
    weight = one.state["net"]["2.weight"]
    weight.copy_(torch.full_like(weight, 0.5))
    weight[:, 0] = 0.4  # the least useful
    memory["age"].copy_(torch.tensor([1000.0, 1000, 1000, 1, 1, 1]))  # old ones and young ones
    grown = 1 - 0.99 ** memory["age"]
    memory["utility"].copy_(weight.abs().mean(dim=0) * grown)
    (state, told), _ = step_of(one, next(batches(1)), 0)
    assert told.numbers["cbp/replaced"] == 1
    assert state["net"]["2.weight"].abs().sum(dim=0).eq(0).tolist() == [True, False, False, False, False, False]


def test_a_utility_forgets_and_begins_anew():
    """In the reference code for ResNets it grows with age, and a new unit inherits it."""
    one = training(linear_net, ContinualBackprop(0.0, 2, 0.5, utility="weight"), optimizer=standing_still)
    for at, batch in enumerate(batches(30)):
        (one.state, _), _ = step_of(one, batch, at)
    torch.testing.assert_close(
        one.state["parts"]["cbp"]["0"]["utility"], one.state["net"]["2.weight"].abs().mean(dim=0), rtol=1e-8, atol=0
    )


# -- every net, every combination -----------------------------------------------------------------------------------

NETS = {
    "mlp": ((1, 4, 4), lambda: MLP((1, 4, 4), 3, width=7), 2),
    "mlp with layer norm": ((1, 4, 4), lambda: MLP((1, 4, 4), 3, width=7, norm="layer"), 2),
    "convnet": ((1, 24, 24), lambda: ConvNet((1, 24, 24), 3, channels=(2, 3, 4), width=5), 5),
    "convnet with batch norm": ((1, 24, 24), lambda: ConvNet((1, 24, 24), 3, channels=(2, 3, 4), width=5, norm="batch"), 5),
    "vgg16": ((1, 32, 32), lambda: VGG16((1, 32, 32), 3, batch_norm=True, width=2, classifier_width=4), 15),
    "resnet18": ((3, 8, 8), lambda: ResNet18((3, 8, 8), 3, width=2), 12),
}


def seeded(make):
    def drawn(seed):
        torch.manual_seed(seed % 2**31)
        return make().double()

    return drawn


@pytest.mark.parametrize("name", NETS)
def test_new_units_of_any_net_are_silent_and_drawn_as_the_net_was(name):
    shape, make, num_groups = NETS[name]
    one = training(seeded(make), ContinualBackprop(0.4, 1, 0.9), optimizer=standing_still, shape=shape)
    groups = one.learner.interventions["cbp"].groups
    assert len(groups) == num_groups
    for at, batch in enumerate(batches(4, shape=shape)):
        (one.state, told), _ = step_of(one, batch, at)
    chosen = {group.name: one.state["parts"]["cbp"][group.name]["age"] == 0 for group in groups}
    assert told.numbers["cbp/replaced"] == sum(int(mask.sum()) for mask in chosen.values()) > 0
    drawn = [seeded(make)(seed_from(SEED, "fresh", "cbp", block)).state_dict() for block in range(4)]
    twin = copy.deepcopy(one.net).eval()
    weights = dict(twin.named_parameters())
    expected = twin(batch.inputs).detach()
    for group in groups:
        for layer in group.layers:
            weight = weights[layer.incoming.tensor]
            rows = torch.cat([state[layer.incoming.tensor] for state in drawn])
            for unit in chosen[group.name].nonzero().flatten().tolist():
                assert (weight[unit] == rows).logical_or(weight[unit] == 0).flatten(1).all(dim=1).any()  # 0: of a silent unit
                if "layer" not in name:  # that norm lets all units see each other
                    with torch.no_grad():
                        weight[unit] = torch.randn_like(weight[unit])
    assert torch.equal(twin(batch.inputs), expected)


@pytest.mark.parametrize(
    "kind", ["mlp", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("convnet with batch norm", "resnet18"))]
)
def test_a_recorded_stack_replaces_what_its_members_replace(kind):
    """Three members of other seeds, rates of learning and of replacing, with SAM, a penalty and Adam: one program for all."""
    shape, make, _ = NETS[kind]
    given = {"gradient": SAM(), "regularizers": {"l2": L2(1e-3)}, "shape": shape}
    if kind == "convnet with batch norm":  # Adam would divide the gradient of a bias before a norm, all rounding, by its size
        given["optimizer"] = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    members = [
        training(seeded(make), ContinualBackprop(0.2, 1, 0.9, transfer_bias=True), seed=seed, **given) for seed in range(3)
    ]
    for number, member in enumerate(members):
        member.state["settings"]["cbp"]["replacement_rate"].mul_(1 - number / 4)
    learner, inputs = members[0].learner, [list(batches(4, shape=shape, seed=seed)) for seed in range(3)]
    assert learner.why_eager() is None

    def step(state, batch, draws):
        state, told = learner.step(state, Batch(*batch), F.cross_entropy, draws)
        return state, told.numbers

    def together(of):
        return tree_map(lambda *tensors: torch.stack(tensors), *of)

    stacked, program, counts = together([dict(one.state) for one in members]), None, []
    for at in range(4):
        draws = [one.draws.at(at, one.state["taken"]) for one in members]
        now = together([tuple(inputs[number][at]) for number in range(3)]), together(draws)
        program = program or make_fx(torch.vmap(step))(stacked, *now)
        stacked, numbers = program(stacked, *now)
        counts.append(numbers["cbp/replaced"].tolist())
        for number, one in enumerate(members):
            one.state, told = one.learner.step(one.state, inputs[number][at], F.cross_entropy, draws[number])
            own = tree_map(lambda tensor, number=number: tensor[number], (stacked, numbers))
            for ours, theirs in zip(tree_flatten(own)[0], tree_flatten((dict(one.state), dict(told.numbers)))[0], strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    assert counts[0] == [0, 0, 0]
    assert len(set(map(sum, zip(*counts, strict=True)))) > 1


def test_a_training_that_is_resumed_goes_on_with_the_same_bits():
    whole, cut = (training(made, ContinualBackprop(0.3, 2, 0.9, utility="random", accumulate=False)) for _ in range(2))
    given = list(batches(8))
    task = _Task()
    for number, batch in enumerate(given):
        whole.learn(task, batch)
        if number == 4:
            kept = cut.state_dict()
            cut = training(made, ContinualBackprop(0.3, 2, 0.9, utility="random", accumulate=False))
            cut.load_state_dict(kept)
        cut.learn(task, batch)
    for ours, theirs in zip(tree_flatten(dict(whole.state))[0], tree_flatten(dict(cut.state))[0], strict=True):
        assert torch.equal(ours, theirs)


class _Task:
    index, loss = 0, staticmethod(F.cross_entropy)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"replacement_rate": 1.5}, "replacement_rate is 1.5; it is a share of a layer's units a step, from 0 to 1"),
        ({"maturity_threshold": -1}, "maturity_threshold is -1; it is a number of steps, 0 or more"),
        ({"decay": 1.0}, "decay is 1.0; running means forget by it, from 0 to below 1"),
        ({"utility": "magic"}, "utility='magic' is not known; choose one of contribution, zero_contribution"),
    ],
)
def test_what_makes_no_sense_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        ContinualBackprop(**given)


def test_a_net_with_nothing_to_replace_is_refused():
    def frozen(seed):
        net = linear_net(seed)
        net[0].weight.requires_grad_(False)
        return net

    with pytest.raises(ValueError, match=r"no units of this net can be replaced: 0: some of its weights are frozen"):
        training(frozen, ContinualBackprop())


@pytest.mark.parametrize("size", [1, 5, MOST_PAIRED, MOST_PAIRED + 1])
def test_places_are_those_of_a_stable_sort(size):
    draw = torch.Generator().manual_seed(size)
    values = torch.randint(4, (size,), generator=draw).float()  # many are equal
    values[::3] = torch.inf
    expected = sorted(range(size), key=lambda unit: values[unit].item())
    assert ranks(values)[expected].tolist() == list(range(size))


def test_what_is_no_number_comes_last():
    assert ranks(torch.tensor([torch.nan, 2.0, torch.inf, 1.0])).tolist() == [2, 1, 3, 0]


@pytest.mark.parametrize("values", [[2.0, 1.0, 3.0, 1.0], [torch.nan, 4.0], [torch.nan, torch.nan], [torch.inf, -1.0], [0.0]])
def test_where_one_is_replaced_the_first_of_the_smallest_comes_first(values):
    found, every = ranks(torch.tensor(values), at_most=1), ranks(torch.tensor(values))
    assert ((found == 0) == (every == 0)).all()
    assert (found >= 0).all()


@pytest.mark.parametrize("accumulate", [True, False])
def test_no_more_units_go_than_the_rate_allows_where_a_sum_is_rounded_up(accumulate):
    """A fifth of five units is 1, and 1 and the largest number below 1 are 2 as they are added."""
    run, [batch] = training(made, ContinualBackprop(0.2, 0, accumulate=accumulate)), batches(1)
    almost = torch.tensor(1.0, dtype=torch.float64).nextafter(torch.tensor(0.0, dtype=torch.float64))
    if accumulate:
        run.state["parts"]["cbp"]["c"]["owed"].copy_(almost)
    draws = run.draws.at(0, run.state["taken"])
    if not accumulate:
        draws["cbp"]["lots"] = torch.full_like(draws["cbp"]["lots"], almost)
    state, _ = run.learner.step(run.state, batch, F.cross_entropy, draws)
    memory = state["parts"]["cbp"]["c"]
    assert (memory["age"] == 0).sum() == 1
    assert not accumulate or memory["owed"] == 1, "the other one comes later"
