"""EWC, SI and MAS over two switches against their formulas written out on a module of torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from taskshift.learners.consolidation import EWC, MAS, SI
from taskshift.learners.learner import Learner
from taskshift.learners.part import Switch
from taskshift.shifts.task import Batch
from taskshift.training import Training
from tests.framework.units_by_hand import batches, made

LR, MOMENTUM = 0.1, 0.9
PARTS = {
    "ewc": EWC(3.0, decay=0.7, average_decay=0.8),
    "mas": MAS(3.0, decay=0.7, average_decay=0.8),
    "si": SI(3.0, decay=0.7, damping=1e-3),
}


class ByHand:
    """§ the formulas, with SGD and momentum by hand and gradients by torch's backward."""

    def __init__(self, kind, net):
        self.kind, self.net, self.of = kind, net, dict(net.named_parameters())
        self.omega, self.gathered, self.speed = ({k: torch.zeros_like(p) for k, p in self.of.items()} for _ in range(3))
        self.star, self.steps = self.now(), 0

    def now(self):
        return {name: p.detach().clone() for name, p in self.of.items()}

    def step(self, batch):
        outputs = self.net(batch.inputs)
        loss = F.cross_entropy(outputs, batch.targets)
        own = dict(zip(self.of, torch.autograd.grad(loss, list(self.of.values())), strict=True))
        before = self.now()
        with torch.no_grad():
            for name, p in self.of.items():
                slope = own[name] + 3.0 * self.omega[name] * (p - self.star[name])
                self.speed[name] = MOMENTUM * self.speed[name] + slope
                p -= LR * self.speed[name]
        self.steps += 1
        if self.kind == "mas":
            statistics = copy.deepcopy(self.net.state_dict())
            length = (self.net(batch.inputs) ** 2).sum() / len(batch.inputs)
            own = dict(zip(self.of, torch.autograd.grad(length, list(self.of.values())), strict=True))
            self.net.load_state_dict(statistics)
        for name, p in self.of.items():
            if self.kind == "si":
                self.gathered[name] += -own[name] * (p.detach() - before[name])
            else:
                new = own[name] ** 2 if self.kind == "ewc" else own[name].abs()
                self.gathered[name] = 0.8 * self.gathered[name] + 0.2 * new

    def switch(self):
        for name, p in self.of.items():
            if self.kind == "si":
                found = self.gathered[name].clamp(min=0) / ((p.detach() - self.star[name]) ** 2 + 1e-3)
            else:
                found = self.gathered[name] / (1 - 0.8**self.steps)
            self.omega[name] = 0.7 * self.omega[name] + found
            self.gathered[name] = torch.zeros_like(p)
        self.star, self.steps = self.now(), 0


def context(one, name):
    return {name: Switch(one.state["settings"][name], {}, [], {}, None, None, None, None, None)}


@pytest.mark.parametrize("kind", PARTS)
def test_three_tasks_equal_the_formulas_written_out(kind):
    learner = Learner(made(0), lambda p: torch.optim.SGD(p, lr=LR, momentum=MOMENTUM), regularizers={kind: PARTS[kind]})
    one, hand = Training(learner, next(batches(1, size=2))), ByHand(kind, made(0).train())
    for number, batch in enumerate(batches(12)):
        if number in (4, 8):
            one.state, _ = learner.switch(one.state, context(one, kind))
            hand.switch()
        one.state, told = learner.step(one.state, batch, F.cross_entropy, {})
        assert told.loss.item() == pytest.approx(F.cross_entropy(hand.net(batch.inputs), batch.targets).item())
        hand.step(batch)
        for name, value in hand.now().items():
            torch.testing.assert_close(one.state["net"][name], value, rtol=1e-10, atol=1e-12, msg=lambda w, n=name: f"{n}: {w}")
        for key, of in (("importance", hand.omega), ("gathered", hand.gathered), ("anchor", hand.star)):
            for name, value in of.items():
                torch.testing.assert_close(one.state["parts"][kind][key][name], value, rtol=1e-9, atol=1e-14)
    assert max(float(value.max()) for value in hand.omega.values()) > 1e-3


def test_ewc_is_the_fisher_information_at_batch_size_1():
    """E over targets of the net's own distribution, of a linear classifier: x xᵀ ⊗ (diag p − p pᵀ), its diagonal."""
    torch.manual_seed(0)
    net = nn.Linear(3, 3, bias=False).double()
    learner = Learner(net, lambda p: torch.optim.SGD(p, lr=0.0), regularizers={"ewc": EWC(0.0, average_decay=0.9999)})
    one, x = Training(learner, next(batches(1, size=2, shape=(3,)))), torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    shares = net(x).softmax(dim=1)[0].detach()
    rng = torch.Generator().manual_seed(0)
    for target in torch.multinomial(shares, 1000, replacement=True, generator=rng):
        one.state, _ = learner.step(one.state, Batch(x, target[None]), F.cross_entropy, {})
    one.state, _ = learner.switch(one.state, context(one, "ewc"))
    expected = torch.outer(shares * (1 - shares), x[0] ** 2)
    found = one.state["parts"]["ewc"]["importance"]["weight"]
    assert ((found - expected).abs() < 5 * (expected / 1000).sqrt() * x[0].abs().max()).all()


def test_a_penalty_does_not_feed_on_itself():
    """Importances of the gradient with the penalty in it would grow from the pull alone."""
    net = nn.Linear(2, 1).double()
    learner = Learner(net, lambda p: torch.optim.SGD(p, lr=0.01), regularizers={"ewc": EWC(10.0, average_decay=0.0)})
    example = Batch(torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2))
    one, before = Training(learner, example), net.weight.detach().clone()
    memory = one.state["parts"]["ewc"]
    for name in memory["importance"]:
        memory["importance"][name] += 1.0
        memory["anchor"][name] += 1.0
    one.state, _ = learner.step(one.state, example, lambda outputs, targets: (outputs * 0).sum(), {})
    assert one.state["net"]["weight"].ne(before).all()  # it was pulled
    assert all(value.abs().max() < 1e-25 for value in one.state["parts"]["ewc"]["gathered"].values())


@pytest.mark.parametrize("kind", PARTS)
def test_it_remembers_three_numbers_a_parameter(kind):
    """Importance, what has gathered, and the anchor: with which parameters a step began is the learner's to tell."""
    net = made(0)
    learner = Learner(net, lambda p: torch.optim.SGD(p, lr=LR), regularizers={kind: PARTS[kind]})
    memory = Training(learner, next(batches(1, size=2))).state["parts"][kind]
    held = sum(value.numel() for of in memory.values() if isinstance(of, dict) for value in of.values())
    assert held == 3 * sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: EWC(1.0, decay=2), "decay is 2; the share of the old importances that stays at a switch"),
        (lambda: MAS(1.0, average_decay=1.0), "average_decay is 1.0; running means forget by it"),
        (lambda: SI(1.0, damping=0), "damping is 0; it keeps importances finite"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
