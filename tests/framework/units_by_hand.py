"""Parts that make units as new, beside the same written out unit by unit in NumPy, on a net with a norm and a skip."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from taskshift.learners.learner import Learner
from taskshift.randomness import seed_from
from taskshift.shifts.task import Batch
from taskshift.training import Training

SEED = 3


class Skipping(nn.Module):
    """A norm, a skip around a layer, and a layer after it: h = relu(norm(a x)), s = h + relu(b h), head tanh(c s)."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 6)
        self.c, self.head = nn.Linear(6, 5), nn.Linear(5, 3)

    def values(self, x):
        """What each consumer reads."""
        h = F.relu(F.batch_norm(self.a(x), None, None, self.norm.weight, self.norm.bias, training=True))
        s = h + F.relu(self.b(h))
        return {"b.weight": h, "c.weight": s, "head.weight": torch.tanh(self.c(s))}

    def forward(self, x):
        h = F.relu(self.norm(self.a(x)))
        return self.head(torch.tanh(self.c(h + F.relu(self.b(h)))))


GROUPS = {  # what a reader of the net would write down: name → makers, zeros, ones, consumers
    "a": (
        ["a.weight", "b.weight"],
        ["a.bias", "b.bias", "norm.bias", "norm.running_mean"],
        ["norm.weight", "norm.running_var"],
        ["b.weight", "c.weight"],
    ),
    "c": (["c.weight"], ["c.bias"], [], ["head.weight"]),
}
SIZES = {"a": 6, "c": 5}


def made(seed):
    torch.manual_seed(seed % 2**31)
    return Skipping().double()


HEIGHTS = {name: len(tensor) for name, tensor in made(0).named_parameters()}


def batches(count, size=7, shape=(4,), classes=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    for _ in range(count):
        inputs = torch.randn(size, *shape, generator=rng, dtype=torch.float64)
        yield Batch(inputs, torch.randint(classes, (size,), generator=rng))


class Rows:
    """Fresh weights of the part called `part`, one after another."""

    def __init__(self, part):
        self.part, self.used = part, {}

    def next(self, name):
        row = self.used[name] = self.used.get(name, -1) + 1
        block, at = divmod(row, HEIGHTS[name])
        return made(seed_from(SEED, "fresh", self.part, block)).state_dict()[name].numpy()[at]


def begin_anew(group, units, net, slots, rows, incoming=None):
    """Change net and slots in place; `incoming(name, unit)` may say what a unit's incoming weights become."""
    makers, zeros, ones, consumers = GROUPS[group]
    for unit in units:
        for name in makers:
            net[name][unit] = rows.next(name) if incoming is None else incoming(name, unit)
        for value, names in ((0, zeros), (1, ones)):
            for name in names:
                net[name][unit] = value
    for unit in units:
        for name in consumers:
            net[name][:, unit] = 0
        for of in slots.values():
            for name in (*makers, *zeros, *ones):
                if name in of:
                    of[name][unit] = 0
            for name in consumers:
                of[name][:, unit] = 0


def training_with(name, part, *, make=made, optimizer=torch.optim.Adam, shape=(4,), seed=SEED, **given):
    learner = Learner(make(seed), optimizer, interventions={name: part} if part else {}, **given)
    return Training(learner, next(batches(1, size=2, shape=shape)), seed=seed, make_net=make)


def training(make, part, **given):
    """With `part` where continual backprop has its place, or nothing."""
    return training_with("cbp", part, make=make, **given)


def step_of(one, batch, at):
    draws = one.draws.at(at, one.state["taken"])
    return one.learner.step(one.state, batch, F.cross_entropy, draws), draws


def standing_still(parameters, **given):
    return torch.optim.SGD(parameters, lr=0.0)


def assert_follows_by_hand(name, part, act, *, optimizer, count=14, size=7):
    """`act(net, slots, values, inputs, at)` changes NumPy's copies of net and slots in place and tells its numbers.

    The numbers by step come back.
    """
    ours, plain, told = training_with(name, part, optimizer=optimizer), training_with("", None, optimizer=optimizer), []
    for at, batch in enumerate(batches(count, size=size)):
        ours.learner.forward(ours.state["net"], batch.inputs)
        twin = made(0)
        twin.load_state_dict(ours.state["net"])
        values = {key: value.detach().numpy() for key, value in twin.values(batch.inputs).items()}
        stepped, _ = plain.learner.step(
            {**plain.state, **{key: ours.state[key] for key in ("net", "slots")}}, batch, F.cross_entropy
        )
        net = {key: tensor.numpy().copy() for key, tensor in stepped["net"].items()}
        slots = {slot: {key: t.numpy().copy() for key, t in of.items()} for slot, of in stepped["slots"].items()}
        draws = ours.draws.at(at, ours.state["taken"])
        state, step = ours.learner.step(ours.state, batch, F.cross_entropy, draws, acting=ours.learner.acting(at))
        told.append(act(net, slots, values, batch.inputs.numpy(), at))
        assert {key.partition("/")[2]: float(value) for key, value in step.numbers.items()} == told[-1]
        ours.state = state
        for key, value in net.items():
            np.testing.assert_allclose(state["net"][key].numpy(), value, rtol=1e-11, atol=1e-12, err_msg=f"{at} {key}")
        for slot, of in slots.items():
            for key, value in of.items():
                np.testing.assert_allclose(
                    state["slots"][slot][key].numpy(), value, rtol=1e-11, atol=1e-12, err_msg=f"{slot} {key}"
                )
    return told, ours
