"""Decoupled weight decay told apart from an L2 penalty."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from taskshift.learners.learner import Learner
from taskshift.learners.regularizers import L2
from taskshift.learners.weight_decay import WeightDecay
from taskshift.shifts.task import Batch
from taskshift.training import Training

SGD, Adam = partial(torch.optim.SGD, lr=0.1), partial(torch.optim.Adam, lr=0.1)
BATCH = Batch(torch.zeros(2, 4, dtype=torch.float64), torch.zeros(2))


def lengths(optimizer, count=3, **given):
    """The weight's norm after each step of a loss without slope, beside that before."""
    torch.manual_seed(0)
    one = Training(Learner(nn.Linear(4, 3).double(), optimizer, **given), BATCH)
    seen = [one.state["net"]["weight"].norm().item()]
    for _ in range(count):
        one.state, _ = one.learner.step(one.state, BATCH, lambda outputs, targets: (outputs * 0).sum(), {})
        seen.append(one.state["net"]["weight"].norm().item())
    return [after / seen[0] for after in seen[1:]]


def test_adam_does_not_rescale_it():
    """An L2 penalty of any weight moves each parameter by Adam's step; the decay is as small as it says."""
    assert lengths(Adam, interventions={"decay": WeightDecay(1e-3)}) == pytest.approx(
        [(1 - 1e-4) ** k for k in (1, 2, 3)], rel=1e-12
    )
    assert lengths(Adam, regularizers={"l2": L2(1e-3)})[0] < 0.9


def test_momentum_does_not_add_it_up():
    moved = {"decay": WeightDecay(1e-2)}
    for momentum in (0.0, 0.9):
        found = lengths(partial(SGD, momentum=momentum), interventions=moved)
        assert found == pytest.approx([(1 - 1e-3) ** k for k in (1, 2, 3)], rel=1e-12)
    assert lengths(partial(SGD, momentum=0.0), regularizers={"l2": L2(1e-2)}) == pytest.approx(found, rel=1e-12)
    assert lengths(partial(SGD, momentum=0.9), regularizers={"l2": L2(1e-2)})[2] < found[2] - 1e-3


def test_it_follows_the_learning_rate_and_refuses_nonsense():
    assert lengths(partial(torch.optim.SGD, lr=0.5), interventions={"decay": WeightDecay(0.1)})[0] == pytest.approx(0.95)
    with pytest.raises(ValueError, match=r"weight is -1; the weight of a decay is 0 or more"):
        WeightDecay(-1)
