"""A learner that loads another's state goes on with the same bits."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.optim import SGD, Adam, Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from taskshift import checkpoint
from taskshift.config.construct import construct
from taskshift.data.synthetic_images import synthetic_images
from taskshift.learners.learner import Learner
from taskshift.learners.regularizers import L2, Regularizer
from taskshift.shifts.permuted import Permuted
from taskshift.stream import TaskStream
from tests.framework.learning import NewHead, Shrink, TowardStart, train, vector
from tests.framework.shift_assertions import DEVICES

CONF = Path("conf/learner")
OPTIMIZERS = {path.stem: path for path in sorted((CONF / "optimizer").glob("*.yaml")) if path.stem != "own"}
SCHEDULERS = {path.stem: path for path in sorted((CONF / "scheduler").glob("*.yaml")) if path.stem != "own"}


@pytest.fixture(params=DEVICES)
def data(request):
    return synthetic_images(num_classes=4, side=4, train_size=96, test_size=40).to(request.param)


@pytest.fixture
def stream(data):
    return TaskStream(data, Permuted(seed=0), num_tasks=5, batch_size=16, seed=0)


def block(path):
    return yaml.safe_load(path.read_text())


def finished(path, base):
    """What a learner gets for a yaml: something to call with the parameters, or with the optimizer."""
    settings = block(path)
    module, _, name = settings.pop("_target_").rpartition(".")
    made = getattr(importlib.import_module(module), name)
    assert issubclass(made, base)
    return partial(made, **settings)


def new_net(device):
    """Batch norm, dropout, and the layers that the toy interventions name."""
    hidden = nn.Sequential(nn.BatchNorm1d(12), nn.Dropout(0.3), nn.ReLU())
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), hidden, nn.Linear(12, 4)).to(device)


def assert_goes_on(make: Callable[[nn.Module], Learner], stream: TaskStream, folder: Path, index: int = 1) -> None:
    """Cut within task `index`, through a file, into a learner built from another seed: the same bits as uncut."""
    device = stream.data.device
    torch.manual_seed(0)
    whole = make(new_net(device))
    train(whole, stream, 0, epochs=3)
    whole.begin(stream[index])
    batches = list(stream.epoch(stream[index], 0))
    for batch in batches[:3]:
        whole.learn(stream[index], *batch)
    checkpoint.save(folder / "state.pt", {"learner": whole.state_dict(), "random": checkpoint.random_state(device)})

    torch.manual_seed(99)
    resumed = make(new_net(device))
    state = checkpoint.load(folder / "state.pt", device)
    resumed.load_state_dict(state["learner"])
    for learner in (whole, resumed):
        checkpoint.set_random_state(state["random"], device)
        learner.steps = [learner.learn(stream[index], *batch).loss.item() for batch in batches[3:]]
        learner.end_epoch(stream[index], learner.steps[-1])
        learner.steps += train(learner, stream, index + 1, epochs=2)
    assert whole.steps == resumed.steps
    assert checkpoint.first_difference(whole.state_dict(), resumed.state_dict()) is None


def test_everything_together_goes_on_bit_for_bit(stream, tmp_path):
    def make(net):
        return Learner(
            net,
            Adam,
            partial(lr_scheduler.CosineAnnealingLR, T_max=20),
            regularizers={"l2": L2(0.01), "toward": TowardStart(0.1)},
            interventions={"shrink": Shrink(2), "head": NewHead()},
            gradient_clip=0.5,
            scheduler_every="step",
        )

    assert_goes_on(make, stream, tmp_path)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_on_bit_for_bit(name, stream, tmp_path):
    assert_goes_on(lambda net: Learner(net, finished(OPTIMIZERS[name], Optimizer)), stream, tmp_path)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("restart", [True, False])
def test_every_scheduler_goes_on_bit_for_bit(name, restart, stream, tmp_path):
    def make(net):
        scheduler = finished(SCHEDULERS[name], LRScheduler)
        return Learner(net, partial(SGD, lr=0.1, momentum=0.9), scheduler, restart_scheduler=restart)

    assert_goes_on(make, stream, tmp_path)


def test_a_copy_of_the_state_can_be_put_back(stream):
    """Measuring compares the state before and after, and puts the copy back where an evaluator changed it."""
    learner = Learner(
        new_net(stream.data.device), Adam, partial(lr_scheduler.MultiStepLR, milestones=[1, 2]), restart_scheduler=False
    )
    train(learner, stream)
    before = checkpoint.cloned(learner.state_dict())
    start = vector(learner.net).clone()
    train(learner, stream, 1)
    assert checkpoint.first_difference(before, learner.state_dict()) is not None
    learner.load_state_dict(before)
    assert checkpoint.first_difference(before, learner.state_dict()) is None
    assert torch.equal(vector(learner.net), start)
    train(learner, stream, 2, epochs=3)


def test_another_learners_parts_are_refused(stream):
    device = stream.data.device
    plain, l2 = Learner(new_net(device), Adam), Learner(new_net(device), Adam, regularizers={"l2": L2(0.1)})
    with pytest.raises(ValueError, match=r"the checkpoint has the regularizers \['l2'\] but this learner has \[\]"):
        plain.load_state_dict(l2.state_dict())


def test_a_part_without_state_refuses_some():
    with pytest.raises(ValueError, match="L2 keeps no state, but the checkpoint has start for it"):
        L2(0.1).load_state_dict({"start": 1})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_yaml_lists_every_argument_with_torchs_default(name):
    """So that no key needs a +; sgd.yaml has a learning rate and momentum of ours."""
    made, settings = finished(OPTIMIZERS[name], Optimizer).func, block(OPTIMIZERS[name])
    parameters = dict(list(inspect.signature(made).parameters.items())[1:])
    assert settings.keys() - {"_target_"} == parameters.keys()
    ours = {"lr": 0.01, "momentum": 0.9} if name == "sgd" else {}
    for key, parameter in parameters.items():
        wanted = ours.get(key, parameter.default)
        assert settings[key] == (list(wanted) if isinstance(wanted, tuple) else wanted), key


@pytest.mark.parametrize("name", SCHEDULERS)
def test_scheduler_yaml_lists_every_argument(name):
    parameters = dict(list(inspect.signature(finished(SCHEDULERS[name], LRScheduler).func).parameters.items())[1:])
    settings = block(SCHEDULERS[name])
    assert settings.keys() - {"_target_"} == parameters.keys()
    optional = {key: one.default for key, one in parameters.items() if one.default is not one.empty}
    assert {key: settings[key] for key in optional} == optional | ({"total_steps": 10} if name == "one_cycle" else {}) | (
        {"gamma": settings["gamma"]} if "gamma" in optional else {}
    )


def test_learner_yamls_compose_and_build():
    """learner=l2 is backprop and its penalty; optimizer, scheduler and parts are chosen by group."""
    backprop, l2 = composed("backprop"), composed("l2")
    assert l2 == backprop | {"regularizers": {"l2": {"_target_": "taskshift.learners.regularizers.L2", "weight": 1e-4}}}
    signature = inspect.signature(Learner).parameters
    assert backprop.keys() - {"_target_"} == signature.keys() - {"net"}
    chosen = composed(
        "l2",
        "learner/optimizer=adam",
        "learner/scheduler=cosine",
        "learner/interventions=[reset_optimizer]",
        "learner.regularizers.l2.weight=0.5",
    )
    learner = construct(chosen, Learner, where="learner", net=nn.Linear(2, 2))
    assert isinstance(learner.optimizer, Adam)
    assert isinstance(learner.schedule.scheduler, lr_scheduler.CosineAnnealingLR)
    assert isinstance(learner.regularizers["l2"], Regularizer)
    assert learner.regularizers["l2"].weight == 0.5
    assert list(learner.interventions) == ["reset_optimizer"]


def composed(name, *overrides):
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(Path("conf").resolve()), version_base="1.3"):
        return OmegaConf.to_container(compose(f"learner/{name}", list(overrides)))["learner"]
