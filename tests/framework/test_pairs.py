"""All pairs of ten parts in one learner: cut off and resumed, they end with the same bits."""

from __future__ import annotations

from functools import partial
from itertools import combinations

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_flatten

from taskshift import checkpoint
from taskshift.execution.shared import SharedPrograms
from taskshift.learners.cbp import ContinualBackprop
from taskshift.learners.ccbp import ContinuousContinualBackprop
from taskshift.learners.consolidation import EWC
from taskshift.learners.gradient import SAM
from taskshift.learners.hare_and_tortoise import HareAndTortoise
from taskshift.learners.learner import Learner
from taskshift.learners.noise import Perturb
from taskshift.learners.rank_restoring import RankRestoring
from taskshift.learners.redo import ReDo
from taskshift.learners.rules.upgd import UPGD
from taskshift.learners.snr import SelfNormalizedResets
from taskshift.learners.spectral import SpectralRegularization
from taskshift.shifts.losses import CrossEntropy
from taskshift.shifts.task import Batch, Task
from taskshift.training import Training

NUM_STEPS, SIZE = 4, 4
TASK = Task(0, torch.arange(1), torch.arange(1), None, CrossEntropy())

PARTS = {  # what of a learner a part is, and the part, quick to act
    "sam": ("gradient", SAM),
    "upgd": ("optimizer", partial(UPGD, sigma=0.1)),
    "spectral": ("regularizers", partial(SpectralRegularization, 0.1)),
    "ewc": ("regularizers", partial(EWC, 1.0)),
    "cbp": ("interventions", partial(ContinualBackprop, 0.4, 1)),
    "rr_cbp": ("interventions", lambda: RankRestoring(ContinualBackprop(0.4, 2))),
    "ccbp": ("interventions", partial(ContinuousContinualBackprop, 0.3, every=2)),
    "redo": ("interventions", partial(ReDo, 0.9, every=2)),
    "snr": ("interventions", partial(SelfNormalizedResets, 0.4, window=2, shortest=1, longest=2)),
    "perturb": ("interventions", partial(Perturb, 0.1)),
}
PAIRS = list(combinations(PARTS, 2))
assert len(PAIRS) == 45


def net(seed):
    torch.manual_seed(seed % 2**31)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def batches():
    rng = torch.Generator().manual_seed(1)
    return [Batch(torch.randn(SIZE, 4, generator=rng), torch.randint(3, (SIZE,), generator=rng)) for _ in range(NUM_STEPS)]


def training_of(*names):
    given = {"optimizer": partial(torch.optim.Adam, lr=0.01), "regularizers": {}, "interventions": {}}
    for name in names:
        place, make = PARTS[name]
        given |= {place: {**given[place], name: make()} if place.endswith("s") else make()}
    return Training(Learner(net(0), **given), batches()[0], seed=2, make_net=net)


def assert_same(one, other, words):
    ours, theirs = (tree_flatten(dict(training.state))[0] for training in (one, other))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b), words


@pytest.mark.parametrize("names", PAIRS, ids="-".join)
def test_a_pair_resumes_as_one(names):
    whole = training_of(*names)
    before = checkpoint.cloned(whole.state)
    for number, batch in enumerate(batches()):
        if number == NUM_STEPS // 2:
            kept = checkpoint.cloned(whole.state_dict())
        whole.learn(TASK, batch)
    assert all(value.isfinite().all() for value in whole.state["net"].values())
    assert not all(torch.equal(value, before["net"][name]) for name, value in whole.state["net"].items())

    resumed = training_of(*names)
    resumed.load_state_dict(kept)
    for batch in batches()[NUM_STEPS // 2 :]:
        resumed.learn(TASK, batch)
    assert_same(whole, resumed, "resumed")


QUICK = [("upgd", "redo"), ("spectral", "snr"), ("ewc", "perturb")]
"""Pairs that are tried replayed each time; recording the others takes longer."""


def replayed(names, shared):
    training = training_of(*names)
    assert not training.use_programs(TASK, batches()[0], compiles=False, shared=shared)
    return training


@pytest.mark.parametrize(
    "names", [pytest.param(names, marks=[] if names in QUICK else pytest.mark.slow) for names in PAIRS], ids="-".join
)
def test_a_pair_resumes_as_one_by_its_programs(names):
    """All steps in a row against the same in two chunks, the second by programs that are recorded anew."""
    steps = Batch(*map(torch.stack, zip(*batches(), strict=True)))
    first, last = (Batch(*parts) for parts in zip(*(part.split(NUM_STEPS // 2) for part in steps), strict=True))
    process, another = SharedPrograms(2), SharedPrograms(1)
    whole, cut, resumed = replayed(names, process), replayed(names, process), replayed(names, another)
    before = checkpoint.cloned(whole.state)
    whole.learn_all(TASK, steps)
    assert not all(torch.equal(value, before["net"][name]) for name, value in whole.state["net"].items())
    cut.learn_all(TASK, first)
    resumed.load_state_dict(checkpoint.cloned(cut.state_dict()))
    resumed.learn_all(TASK, last)
    assert resumed.num_steps == NUM_STEPS
    assert_same(whole, resumed, "resumed")


@pytest.mark.parametrize("name", PARTS)
def test_each_of_them_does_something(name):
    """So that the pairs say something: alone it ends elsewhere than backprop does."""
    alone, plain = training_of(name), training_of()
    for batch in batches():
        alone.learn(TASK, batch)
        plain.learn(TASK, batch)
    apart = any(not torch.equal(value, plain.state["net"][key]) for key, value in alone.state["net"].items())
    assert apart or (name == "ewc" and alone.state["parts"]["ewc"]["gathered"]["0.weight"].abs().max() > 0)


def test_two_of_one_kind_that_exclude_each_other_are_refused():
    learner = {"optimizer": torch.optim.SGD, "regularizers": {"one": EWC(1.0)}, "interventions": {"one": HareAndTortoise()}}
    with pytest.raises(ValueError, match="regularizers and interventions both have a part called one"):
        Learner(net(0), **{**learner, "optimizer": partial(torch.optim.SGD, lr=0.1)})
