"""A learner that loads another's state goes on with the same bits."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from copy import deepcopy
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
from taskshift.learners.gradient import SAM
from taskshift.learners.interventions import ResetOptimizer
from taskshift.learners.learner import Learner
from taskshift.learners.regularizers import L2, Regularizer
from taskshift.learners.rule import Rule
from taskshift.learners.schedule import Length
from taskshift.shifts.permuted import Permuted
from taskshift.shifts.task import Batch
from taskshift.stream import TaskStream
from taskshift.training import Training
from tests.framework.learning import (
    EagerTowardStart,
    FreshHead,
    NewHead,
    Noise,
    PowerIteration,
    Redraw,
    Shrink,
    Tortoise,
    TowardStart,
    train,
    training_of,
    vector,
)
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


class Accelerated(SGD):
    """A subclass steps by its own code."""


def block(path):
    return yaml.safe_load(path.read_text())


def finished(path, base):
    """What a learner gets for a yaml: something to call with the parameters, or with the optimizer; a rule as it is."""
    settings = block(path)
    module, _, name = settings.pop("_target_").rpartition(".")
    made = getattr(importlib.import_module(module), name)
    assert issubclass(made, base)
    return made(**settings) if issubclass(made, Rule) else partial(made, **settings)


def new_net(device):
    """Batch norm, dropout, and the layers that the toy interventions name."""
    hidden = nn.Sequential(nn.BatchNorm1d(12), nn.Dropout(0.3), nn.ReLU())
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), hidden, nn.Linear(12, 4)).to(device)


def seeded_net(seed, device):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return new_net(device)


def assert_goes_on(make: Callable[[nn.Module], Training], stream: TaskStream, folder: Path, index: int = 1) -> None:
    """Cut within task `index`, through a file, into a training built from another seed: the same bits as uncut."""
    device, task = stream.data.device, stream[index]
    torch.manual_seed(0)
    whole = make(new_net(device))
    train(whole, stream, 0, epochs=3)
    whole.begin(task, stream.in_batches(task, task.train))
    batches = list(stream.epoch(task, 0))
    for batch in batches[:3]:
        whole.learn(task, batch)
    checkpoint.save(folder / "state.pt", {"training": whole.state_dict(), "random": checkpoint.random_state(device)})

    torch.manual_seed(99)
    resumed = make(new_net(device))
    state = checkpoint.load(folder / "state.pt", device)
    resumed.load_state_dict(state["training"])
    losses = []
    for training in (whole, resumed):
        checkpoint.set_random_state(state["random"], device)
        steps = [training.learn(task, batch).loss.item() for batch in batches[3:]]
        training.end_epoch(task, {"loss": steps[-1]})
        losses.append(steps + train(training, stream, index + 1, epochs=2))
    assert losses[0] == losses[1]
    assert checkpoint.first_difference(whole.state_dict(), resumed.state_dict()) is None
    assert checkpoint.first_difference(whole.net.state_dict(), resumed.net.state_dict()) is None


def test_everything_together_goes_on_bit_for_bit(stream, tmp_path):
    def make(net):
        return training_of(
            net,
            Adam,
            stream,
            make_net=lambda seed: seeded_net(seed, stream.data.device),
            gradient=SAM(0.01),
            scheduler=partial(lr_scheduler.CosineAnnealingLR, T_max=20),
            regularizers={"l2": L2(0.01), "toward": TowardStart(0.1), "power": PowerIteration()},
            interventions={"redraw": Redraw(2), "noise": Noise(), "tortoise": Tortoise(), "head": FreshHead()},
            gradient_clip=0.5,
            scheduler_every="step",
        )

    assert_goes_on(make, stream, tmp_path)


def test_parts_that_work_in_place_go_on_bit_for_bit(stream, tmp_path):
    def make(net):
        return training_of(
            net,
            Adam,
            stream,
            scheduler=partial(lr_scheduler.CosineAnnealingLR, T_max=20),
            regularizers={"l2": L2(0.01), "toward": EagerTowardStart(0.1)},
            interventions={"shrink": Shrink(2), "head": NewHead()},
            gradient_clip=0.5,
            scheduler_every="step",
        )

    assert_goes_on(make, stream, tmp_path)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_on_bit_for_bit(name, stream, tmp_path):
    assert_goes_on(lambda net: training_of(net, finished(OPTIMIZERS[name], (Optimizer, Rule)), stream), stream, tmp_path)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("optimizer", [SGD, Accelerated], ids=["pure", "torch's own"])
def test_every_scheduler_goes_on_bit_for_bit(name, restart, optimizer, stream, tmp_path):
    def make(net):
        scheduler = finished(SCHEDULERS[name], LRScheduler)
        if name == "one_cycle" and not restart:
            scheduler = partial(scheduler, total_steps=3 * len(stream))
        given = {"scheduler": scheduler, "restart_scheduler": restart, "length": Length(stream, 3, stream.num_batches)}
        return training_of(net, partial(optimizer, lr=0.1, momentum=0.9), stream, **given)

    assert_goes_on(make, stream, tmp_path)


def test_a_copy_of_the_state_can_be_put_back(stream):
    """Measuring compares the state before and after, and puts the copy back where an evaluator changed it."""
    scheduler = partial(lr_scheduler.MultiStepLR, milestones=[1, 2])
    training = training_of(new_net(stream.data.device), Adam, stream, scheduler=scheduler, restart_scheduler=False)
    train(training, stream)
    before = checkpoint.cloned(training.state_dict())
    start = vector(training.net).clone()
    train(training, stream, 1)
    assert checkpoint.first_difference(before, training.state_dict()) is not None
    training.load_state_dict(before)
    assert checkpoint.first_difference(before, training.state_dict()) is None
    assert torch.equal(vector(training.net), start)
    train(training, stream, 2, epochs=3)


def test_an_earlier_state_draws_again_what_it_drew(stream):
    """Put back into the same training, it takes the same fresh rows and the same noise."""
    device = stream.data.device
    training = training_of(
        new_net(device),
        Adam,
        stream,
        make_net=lambda seed: seeded_net(seed, device),
        interventions={"redraw": Redraw(), "noise": Noise()},
    )
    before = checkpoint.cloned(training.state_dict())
    random = checkpoint.random_state(device)
    train(training, stream, 0, epochs=6)
    after = checkpoint.cloned(training.state_dict())
    training.load_state_dict(before)
    checkpoint.set_random_state(random, device)
    train(training, stream, 0, epochs=6)
    assert training.state["taken"]["redraw"]["rows"] == 36, "three nets' worth of rows"
    assert checkpoint.first_difference(after, training.state_dict()) is None


def test_another_learners_parts_are_refused(stream):
    device = stream.data.device
    plain, l2 = (training_of(new_net(device), Adam, stream, regularizers=parts) for parts in ({}, {"l2": L2(0.1)}))
    with pytest.raises(ValueError, match=r"the checkpoint is of a learner with the parts \['l2', 'optimizer'\] but this one has"):
        plain.load_state_dict(l2.state_dict())


def test_a_part_without_state_refuses_some():
    with pytest.raises(ValueError, match="NewHead keeps no state, but the checkpoint has start for it"):
        NewHead().load_state_dict({"start": 1})


def test_another_net_can_be_put_in(stream):
    """The net alone: what the optimizer remembers stays."""
    training, other = (training_of(new_net(stream.data.device), Adam, stream) for _ in range(2))
    train(training, stream)
    slots = checkpoint.cloned(training.state["slots"])
    training.load_net(other.net.state_dict())
    assert checkpoint.first_difference(dict(training.net.state_dict()), dict(other.net.state_dict())) is None
    assert checkpoint.first_difference(slots, training.state["slots"]) is None
    train(training, stream)
    assert checkpoint.first_difference(dict(training.net.state_dict()), dict(other.net.state_dict())) is not None


def test_the_net_is_a_window(stream):
    """Nothing is copied: what is written into it is written into the state."""
    training = training_of(new_net(stream.data.device), Adam, stream)
    train(training, stream)
    weight = training.net[1].weight
    assert weight.data_ptr() == training.state["net"]["1.weight"].data_ptr()
    assert training.net[2][0].running_mean.data_ptr() == training.state["net"]["2.0.running_mean"].data_ptr()
    train(training, stream)
    assert training.net[1].weight is weight, "the same parameter, on to the next state"
    assert weight.data_ptr() == training.state["net"]["1.weight"].data_ptr()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_yaml_lists_every_argument_with_its_default(name):
    """So that no key needs a +; sgd.yaml has a learning rate and momentum of ours."""
    made, settings = finished(OPTIMIZERS[name], (Optimizer, Rule)), block(OPTIMIZERS[name])
    is_rule = isinstance(made, Rule)
    if not is_rule and made.func.__module__.startswith("pytorch_optimizer"):  # whose versions add some, and some no yaml can hold
        assert settings.keys() - {"_target_"} <= inspect.signature(made.func).parameters.keys()
        return
    parameters = dict(list(inspect.signature(type(made) if is_rule else made.func).parameters.items())[0 if is_rule else 1 :])
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
    assert {key: settings[key] for key in optional} == optional | ({"gamma": settings["gamma"]} if "gamma" in optional else {})


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
    example = Batch(torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64))
    assert isinstance(Training(learner, example).schedule.scheduler, lr_scheduler.CosineAnnealingLR)
    assert isinstance(learner.regularizers["l2"], Regularizer)
    assert learner.regularizers["l2"].weight == 0.5
    assert list(learner.interventions) == ["reset_optimizer"]


def composed(name, *overrides):
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(Path("conf").resolve()), version_base="1.3"):
        return OmegaConf.to_container(compose(f"learner/{name}", list(overrides)))["learner"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rehearsal_and_a_trial_leave_no_trace_in_the_optimizer(name, stream):
    """Some count their steps in their groups, and keep lists that they change in place."""
    task, found = stream[0], []
    for tries in (False, True):
        torch.manual_seed(0)
        training = training_of(new_net(stream.data.device), finished(OPTIMIZERS[name], (Optimizer, Rule)), stream)
        if tries:
            training.rehearse(task, stream.gather(task, task.train[:2]))
        held = training.learner.optimizer.param_groups
        groups = [{key: value for key, value in group.items() if key != "params"} for group in held]
        batches = list(stream.epoch(task, 0))
        for number, batch in enumerate(batches[:4]):
            if tries:
                training.try_step(task, batches[-1])
            torch.manual_seed(number)
            training.learn(task, batch)
        found.append((groups, checkpoint.cloned(training.state)))
    assert found[0][0] == found[1][0]
    assert checkpoint.first_difference(found[0][1], found[1][1]) is None


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_that_is_reset_steps_as_a_new_one(name, stream):
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4)).to(stream.data.device)
    made, task = finished(OPTIMIZERS[name], (Optimizer, Rule)), stream[1]
    training = training_of(net, made, stream, interventions={"reset": ResetOptimizer()})
    train(training, stream, 0)
    training.begin(task, stream.in_batches(task, task.train))
    anew = training_of(deepcopy(training.net), made, stream)
    anew.num_steps = training.num_steps  # the noise of a step goes by its number
    for number, batch in enumerate(list(stream.epoch(task, 0))[:3]):
        for one in (training, anew):
            torch.manual_seed(number)
            one.learn(task, batch)
    assert checkpoint.first_difference(training.state["net"], anew.state["net"]) is None
