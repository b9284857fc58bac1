"""One step against closed forms, and what a learner is made of."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import LBFGS, SGD, Adagrad, Adam, Adamax, NAdam, Rprop, lr_scheduler

from taskshift import checkpoint
from taskshift.data.synthetic_images import synthetic_images
from taskshift.faults import Fault
from taskshift.learners.eager import EagerAtSwitch
from taskshift.learners.gradient import ASAM, SAM, Plain
from taskshift.learners.interventions import AfterStep, AtSwitch, Intervention, ResetOptimizer
from taskshift.learners.part import Context
from taskshift.learners.regularizers import L2
from taskshift.learners.rules.adam import Adam as AdamRule
from taskshift.learners.schedule import Length
from taskshift.shifts.permuted import Permuted
from taskshift.shifts.stationary import Stationary
from taskshift.shifts.task import Batch
from taskshift.stream import TaskStream
from tests.framework.learning import (
    ActivitySquared,
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
from tests.framework.shift_assertions import DEVICES, fingerprint, same


@pytest.fixture(params=DEVICES)
def data(request):
    return synthetic_images(num_classes=4, side=4, train_size=96, test_size=40).to(request.param)


@pytest.fixture
def stream(data):
    return TaskStream(data, Permuted(seed=0), num_tasks=5, batch_size=16, seed=0)


@pytest.fixture
def net(data):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4)).to(data.device)


def first_batch(stream, index=0):
    return stream[index], next(iter(stream.epoch(stream[index], 0)))


def gradient_of(net, task, inputs, targets):
    loss = task.loss(net(inputs), targets)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))]), loss.detach()


def test_a_step_follows_the_gradient_and_reports_the_loss_before_it(net, stream):
    task, batch = first_batch(stream)
    (gradient, loss), start, outputs = gradient_of(net, task, *batch), vector(net), net(batch.inputs).detach()
    training = training_of(net, partial(SGD, lr=0.1), stream)
    step = training.learn(task, batch)
    torch.testing.assert_close(vector(training.net), start - 0.1 * gradient)
    assert torch.equal(step.loss, loss)
    assert torch.equal(step.outputs, outputs)
    assert not step.loss.requires_grad
    assert not step.outputs.requires_grad


def test_gradients_do_not_accumulate_from_step_to_step(net, stream):
    training = training_of(net, partial(SGD, lr=0.1), stream)
    train(training, stream)
    task, batch = first_batch(stream, 1)
    (gradient, _), start = gradient_of(training.net, task, *batch), vector(training.net)
    training.learn(task, batch)
    torch.testing.assert_close(vector(training.net), start - 0.1 * gradient)


@pytest.mark.parametrize("clip", [1e-3, 1e6])
def test_clipping_bounds_the_steps_length_and_keeps_its_direction(net, stream, clip):
    task, batch = first_batch(stream)
    (gradient, _), start = gradient_of(net, task, *batch), vector(net)
    training = training_of(net, partial(SGD, lr=1.0), stream, gradient_clip=clip)
    step = training.learn(task, batch)
    wanted = gradient * min(1.0, clip / gradient.norm().item())
    torch.testing.assert_close(vector(training.net), start - wanted, rtol=1e-4, atol=1e-7)
    assert step.numbers["gradient_clip/clipped"].item() == (clip < 1)


def test_learning_puts_the_net_in_train_mode(net, stream):
    net.eval()
    training = training_of(net, partial(SGD, lr=0.1), stream)
    training.learn(*first_batch(stream))
    assert all(module.training for module in training.net.modules())


@pytest.mark.parametrize("optimizer", [partial(SGD, lr=0.1, weight_decay=0.1), Rprop], ids=["pure", "torch's own"])
def test_frozen_parameters_are_left_alone(net, stream, optimizer):
    net[1].weight.requires_grad_(False)
    before = net[1].weight.clone()
    training = training_of(net, optimizer, stream, regularizers={"l2": L2(1.0)})
    assert "1.weight" not in training.learner.trained, "regularisers see what is trained"
    train(training, stream)
    assert torch.equal(training.net[1].weight, before)
    assert not training.net[1].weight.requires_grad


def test_a_step_leaves_its_state_and_the_net_alone(net, stream):
    """The same state twice gives the same bits, with torch's own optimizers too: nothing is written in place."""
    task, batch = first_batch(stream)
    for optimizer in (partial(SGD, lr=0.1, momentum=0.9), Adam, Adagrad, partial(NAdam, lr=0.1)):
        training = training_of(copy.deepcopy(net), optimizer, stream)
        training.learn(task, batch)
        before = checkpoint.cloned(training.state)
        one, _ = training.learner.step(training.state, batch, task.loss)
        kept = checkpoint.cloned(one)
        other, _ = training.learner.step(training.state, batch, task.loss)
        assert checkpoint.first_difference(before, checkpoint.cloned(training.state)) is None
        assert checkpoint.first_difference(kept, checkpoint.cloned(other)) is None
        assert checkpoint.first_difference(before["net"], kept["net"]) is not None


def test_l2_equals_weight_decay_under_sgd(net, stream):
    """Coupled decay is half the squared norm's gradient; with the loss that is recorded without it."""
    first = training_of(copy.deepcopy(net), partial(SGD, lr=0.1, momentum=0.9), stream, regularizers={"l2": L2(0.05)})
    second = training_of(net, partial(SGD, lr=0.1, momentum=0.9, weight_decay=0.05), stream)
    recorded, decayed = train(first, stream), train(second, stream)
    torch.testing.assert_close(vector(first.net), vector(second.net))
    torch.testing.assert_close(recorded, decayed)


def test_l2_is_half_the_squared_norm(net):
    context = Context({"weight": torch.tensor(0.3)})
    penalty = L2(0.3).penalty({name: p.cpu() for name, p in net.named_parameters()}, context)
    torch.testing.assert_close(penalty.item(), 0.15 * float(vector(net).double().square().sum()), rtol=1e-6, atol=0)


def test_the_reported_loss_is_without_the_regulariser(net, stream):
    task, batch = first_batch(stream)
    _, loss = gradient_of(net, task, *batch)
    training = training_of(net, partial(SGD, lr=0.1), stream, regularizers={"l2": L2(10.0)})
    assert torch.equal(training.learn(task, batch).loss, loss)


# -- gradients ---------------------------------------------------------------------------------------------------


def by_autograd(net, task, batch, penalty, rho, eta):
    """The gradient after an ascent, leaf by leaf: SAM's, or ASAM's where `eta` is not None."""
    leaves = list(net.parameters())
    uphill = torch.autograd.grad(task.loss(net(batch.inputs), batch.targets), leaves)
    sizes = [torch.ones_like(p) if eta is None else p.detach().abs() + eta for p in leaves]
    length = torch.cat([(size * g).flatten() for size, g in zip(sizes, uphill, strict=True)]).norm()
    away = copy.deepcopy(net)
    with torch.no_grad():
        for leaf, size, g in zip(away.parameters(), sizes, uphill, strict=True):
            leaf += rho * size**2 * g / length
    found = torch.autograd.grad(task.loss(away(batch.inputs), batch.targets), list(away.parameters()))
    own = torch.autograd.grad(penalty(net), leaves)
    return torch.cat([(g + h).flatten() for g, h in zip(found, own, strict=True)])


@pytest.mark.parametrize(("gradient", "eta"), [(SAM(0.2), None), (ASAM(0.7, 0.05), 0.05)], ids=["sam", "asam"])
def test_sharpness_aware_gradients_go_with_every_other_part(net, stream, gradient, eta):
    """The penalty's gradient is taken at θ itself, the loss reported is that at θ; clip and decay come after."""
    net, (task, batch) = net.double(), first_batch(stream)
    batch = Batch(batch.inputs.double(), batch.targets)
    start, (_, loss) = vector(net), gradient_of(net, task, *batch)
    wanted = by_autograd(net, task, batch, lambda at: 0.05 * sum(p.square().sum() for p in at.parameters()), gradient.rho, eta)
    wanted = wanted * min(1.0, 0.3 / wanted.norm().item()) + 0.01 * start
    parts = {"regularizers": {"l2": L2(0.1)}, "gradient": gradient, "gradient_clip": 0.3}
    training = training_of(net, partial(SGD, lr=0.1, weight_decay=0.01), stream, **parts)
    step = training.learn(task, batch)
    torch.testing.assert_close(vector(training.net), start - 0.1 * wanted, rtol=1e-6, atol=1e-7)  # the clip adds 1e-6
    assert torch.equal(step.loss, loss)


def test_running_statistics_are_those_of_the_pass_at_the_parameters(stream):
    """Sharpness-aware steps pass twice; a norm layer counts one."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.Linear(12, 4)).to(stream.data.device)
    twin, (task, batch) = copy.deepcopy(net), first_batch(stream)
    training = training_of(net, partial(SGD, lr=0.1), stream, gradient=SAM(0.5))
    training.learn(task, batch)
    twin(batch.inputs)
    for name, buffer in twin.named_buffers():
        torch.testing.assert_close(training.net.get_buffer(name), buffer)


def test_a_zero_gradient_ascends_nowhere(net, stream):
    task, batch = first_batch(stream)
    state = {name: torch.zeros_like(value) for name, value in net.state_dict().items()}
    net.load_state_dict(state)
    for gradient in (SAM(), ASAM()):
        training = training_of(copy.deepcopy(net), partial(SGD, lr=0.1), stream, gradient=gradient)
        training.learn(task, Batch(torch.zeros_like(batch.inputs), batch.targets))
        assert vector(training.net).isfinite().all()


# -- parts -------------------------------------------------------------------------------------------------------


def test_a_part_reads_features_from_before_the_step_and_counts_what_it_does(net, stream):
    task, batch = first_batch(stream)
    torch.manual_seed(5)
    fresh = copy.deepcopy(net)
    fresh[1].reset_parameters()
    training = training_of(net, Adam, stream, make_net=lambda seed: fresh, interventions={"redraw": Redraw()})
    activity = net[:3](batch.inputs).abs().mean(dim=0)
    unit = activity.argmin().item()
    step = training.learn(task, batch)
    assert torch.equal(training.net[1].weight[unit], fresh[1].weight[0])
    assert training.state["slots"]["step"]["1.weight"][unit].unique().tolist() == [0.0], "its bias correction begins anew"
    assert training.state["slots"]["step"]["1.weight"].sum() == 11 * 16
    assert step.numbers["redraw/replaced"].item() == 1
    later = training.learn(task, batch)
    assert any(torch.equal(row, fresh[1].weight[1]) for row in training.net[1].weight), "the next row, not the same again"
    assert later.numbers["redraw/replaced"].item() == 1


def test_an_intervention_acts_every_so_many_steps(net, stream):
    training = training_of(net, Adam, stream, make_net=lambda seed: net, interventions={"redraw": Redraw(every=4)})
    train(training, stream, 0)
    assert training.num_steps == 6
    train(training, stream, 1)
    assert training.state["parts"]["redraw"]["count"].item() == 3, "steps count over tasks"


def test_users_hooks_run_and_stay(net, stream):
    seen = []
    net[2].register_forward_hook(lambda module, given, output: seen.append(len(output)) or 2 * output)
    training = training_of(net, Adam, stream, make_net=lambda seed: net, interventions={"redraw": Redraw()})
    task, batch = first_batch(stream)
    training.learn(task, batch)
    assert seen == [16]
    assert len(net[2]._forward_hooks) == 1
    activity = training.state["parts"]["redraw"]["activity"]
    with torch.no_grad():
        training.learn(task, batch)
    assert activity.max() > 0


def test_a_module_that_is_not_there_or_runs_twice_cannot_be_read(stream):
    class Reads(Redraw):
        reads = ("nowhere",)

    with pytest.raises(ValueError, match="redraw reads the output of the module nowhere, which the net does not have"):
        training_of(nn.Sequential(nn.Flatten(), nn.Linear(16, 12)), Adam, stream, interventions={"redraw": Reads()})
    shared = nn.Tanh()
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), shared, nn.Linear(12, 4), shared).to(stream.data.device)
    training = training_of(net, Adam, stream, make_net=lambda seed: net, interventions={"redraw": Redraw()})
    with pytest.raises(ValueError, match="the module 2 is called twice in a forward pass"):
        training.learn(*first_batch(stream))


def test_penalties_may_look_at_features(net, stream):
    task, batch = first_batch(stream)
    hidden = net[:3](batch.inputs)
    loss = task.loss(net(batch.inputs), batch.targets) + 0.1 * hidden.square().mean()
    wanted = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])
    start = vector(net)
    training = training_of(net, partial(SGD, lr=0.1), stream, regularizers={"activity": ActivitySquared()})
    training.learn(task, batch)
    torch.testing.assert_close(vector(training.net), start - 0.1 * wanted)


@pytest.mark.parametrize("gradient", [Plain(), SAM()])
def test_a_regulariser_advances_once_a_step(net, stream, gradient):
    training = training_of(net, partial(SGD, lr=0.1), stream, gradient=gradient, regularizers={"power": PowerIteration()})
    weight = net[1].weight.detach().clone()
    v = weight.T @ (weight @ training.state["parts"]["power"]["v"])
    training.learn(*first_batch(stream))
    torch.testing.assert_close(training.state["parts"]["power"]["v"], v / v.norm())


def test_interventions_and_regularisers_that_work_in_place_fit_too(net, stream):
    parts = {"regularizers": {"toward": EagerTowardStart(0.1)}, "interventions": {"shrink": Shrink(2), "head": NewHead()}}
    training = training_of(net, Adam, stream, **parts)
    train(training, stream, 0)
    assert training.learner.interventions["shrink"].part.count == 6
    head = training.net[3].weight.clone()
    training.begin(stream[1])
    assert not torch.equal(training.net[3].weight, head)
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_in_place_and_pure_give_the_same_steps(net, stream):
    """A pure part and the same part written in place, beside torch's own Adam."""
    found = []
    for part in (TowardStart(0.1), EagerTowardStart(0.1)):
        training = training_of(copy.deepcopy(net), partial(SGD, lr=0.1), stream, regularizers={"toward": part})
        found.append((train(training, stream), vector(training.net)))
    torch.testing.assert_close(found[0], found[1])


def test_switch_interventions_skip_the_first_task_and_see_the_next_ones_data(net, stream):
    seen = []

    class Looks(AtSwitch):
        reads = ("2",)

        def at_switch(self, subject, context):
            inputs, targets = context.batches[0]
            features = context.features(subject.net, inputs)["2"]
            gradients = context.gradients(subject.net, context.batches[0])
            seen.append((sum(len(batch.targets) for batch in context.batches), features, gradients["3.bias"], inputs, targets))
            return subject

    training = training_of(net, Adam, stream, interventions={"looks": Looks()})
    train(training, stream, 0)
    assert seen == []
    before, task = copy.deepcopy(training.net), stream[1]
    training.begin(task, stream.in_batches(task, task.train))
    [(count, features, gradient, inputs, targets)] = seen
    assert count == len(task.train)
    torch.testing.assert_close(features, before[:3](inputs))
    loss = task.loss(before(inputs), targets)
    torch.testing.assert_close(gradient, torch.autograd.grad(loss, before[3].bias)[0])


def test_weights_drawn_anew_are_as_the_runs_net_was_drawn(net, stream):
    """Whatever its constructor does: here weights of 7, which no scheme of ours draws."""

    def make_net(seed):
        made = copy.deepcopy(net)
        made.load_state_dict({name: torch.full_like(value, 7.0) for name, value in made.state_dict().items()})
        return made

    training = training_of(net, Adam, stream, make_net=make_net, interventions={"head": FreshHead()})
    numbers = training.begin(stream[1])
    assert training.net[3].weight.unique().tolist() == [7.0]
    assert training.net[1].weight.max() < 1
    assert numbers["head/heads"].item() == 1


def test_the_measured_net_is_the_one_that_a_part_offers(net, stream):
    training = training_of(net, partial(SGD, lr=0.5), stream, interventions={"tortoise": Tortoise()})
    task, average = stream[0], vector(net)
    for batch in stream.epoch(task, 0):
        training.learn(task, batch)
        hare = torch.cat([training.state["net"][name].flatten() for name, _ in net.named_parameters()])
        average = average.lerp(hare, 0.1)
    torch.testing.assert_close(vector(training.net), average)
    assert not torch.allclose(hare, average)
    numbers = training.end_epoch(task, {"loss": 1.0})
    assert numbers["tortoise/moved"].item() == 1
    torch.testing.assert_close(torch.cat([training.state["net"][name].flatten() for name, _ in net.named_parameters()]), average)


def test_noise_is_the_same_whatever_was_drawn_before(net, stream):
    """Its generator is the run's own: torch's default one has nothing to do with it, and is left alone."""
    found = []
    for number in (1, 2):
        torch.manual_seed(number)
        training = training_of(copy.deepcopy(net), partial(SGD, lr=0.1), stream, interventions={"noise": Noise()})
        state = torch.get_rng_state()
        train(training, stream, 0, epochs=2)
        assert torch.equal(state, torch.get_rng_state())
        found.append(vector(training.net))
    assert torch.equal(*found)
    plain = training_of(copy.deepcopy(net), partial(SGD, lr=0.1), stream)
    train(plain, stream, 0, epochs=2)
    assert not torch.equal(vector(plain.net), found[0])


def test_reset_optimizer_forgets_momentum_at_a_switch(net, stream):
    training = training_of(net, partial(SGD, lr=0.1, momentum=0.9), stream, interventions={"reset": ResetOptimizer()})
    train(training, stream, 0)
    training.begin(stream[1])
    task, batch = first_batch(stream, 1)
    (gradient, _), start = gradient_of(training.net, task, *batch), vector(training.net)
    training.learn(task, batch)
    torch.testing.assert_close(vector(training.net), start - 0.1 * gradient)


@pytest.mark.parametrize("optimizer", [Adagrad, Rprop, partial(Adam, lr=0.1)])
def test_reset_optimizer_begins_any_optimizer_anew(net, stream, optimizer):
    training = training_of(net, optimizer, stream, interventions={"reset": ResetOptimizer()})
    train(training, stream, 0)
    training.begin(stream[1])
    anew = training_of(copy.deepcopy(training.net), optimizer, stream)
    task, batch = first_batch(stream, 1)
    for one in (training, anew):
        one.learn(task, batch)
    torch.testing.assert_close(vector(training.net), vector(anew.net))


# -- schedules ---------------------------------------------------------------------------------------------------


def rate(training):
    """The learning rate that the next step takes."""
    return training.state["settings"]["optimizer"]["lr"].item()


@pytest.mark.parametrize(("every", "per_task"), [("epoch", 2), ("step", 12)])
@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize(
    "optimizer", [partial(SGD, lr=0.1), partial(Adamax, lr=0.1), AdamRule(0.1)], ids=["pure", "torch's own", "a rule"]
)
def test_schedulers_step_as_told_and_restart_by_option(net, stream, every, per_task, restart, optimizer):
    make = partial(lr_scheduler.ExponentialLR, gamma=0.5)
    training = training_of(net, optimizer, stream, scheduler=make, scheduler_every=every, restart_scheduler=restart)
    for index in range(3):
        train(training, stream, index, epochs=2)
        halvings = per_task * (1 if restart else index + 1)
        assert rate(training) == pytest.approx(0.1 * 0.5**halvings)
        assert training.learner.optimizer.param_groups[0]["lr"] == rate(training)


def test_a_scheduled_rate_is_the_one_that_steps(net, stream):
    """Against torch's own optimizer and scheduler, beside each other."""
    twin, task = copy.deepcopy(net), stream[0]
    optimizer = SGD(twin.parameters(), lr=0.1, momentum=0.5)
    scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=7)  # moves momentum too
    make = partial(lr_scheduler.OneCycleLR, max_lr=0.5, total_steps=7)
    training = training_of(net, partial(SGD, lr=0.1, momentum=0.5), stream, scheduler=make, scheduler_every="step")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for batch in stream.epoch(task, 0):
            training.learn(task, batch)
            optimizer.zero_grad()
            task.loss(twin(batch.inputs), batch.targets).backward()
            optimizer.step()
            scheduler.step()
    torch.testing.assert_close(vector(training.net), vector(twin))


def test_a_restart_puts_back_all_that_the_scheduler_changed(net, stream):
    """One-cycle moves momentum too, and writes keys of its own."""
    make = partial(lr_scheduler.OneCycleLR, max_lr=0.5, total_steps=7)
    training = training_of(net, partial(SGD, lr=0.1, momentum=0.9), stream, scheduler=make, scheduler_every="step")
    before = checkpoint.cloned(training.state["settings"])
    train(training, stream, 0)
    assert checkpoint.first_difference(before, checkpoint.cloned(training.state["settings"])) is not None
    training.begin(stream[1])
    assert checkpoint.first_difference(before, checkpoint.cloned(training.state["settings"])) is None
    train(training, stream, 2)


def test_plateau_looks_at_the_epochs_loss(net, stream):
    make = partial(lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=0)
    training = training_of(net, partial(SGD, lr=0.1), stream, scheduler=make)
    for loss in (1.0, 0.9, 0.95, 0.96):
        training.end_epoch(stream[0], {"loss": loss})
    assert rate(training) == pytest.approx(0.025)


class Growing(Stationary):
    """Task i has 16 · (i + 1) examples."""

    def task(self, data, index):
        task = super().task(data, index)
        return dataclasses.replace(task, train=task.train[: 16 * (index + 1)])


@pytest.mark.parametrize(("every", "steps"), [("epoch", (2, 2, 2)), ("step", (2, 4, 6))])
def test_a_cycle_of_no_given_length_goes_over_each_task(every, steps, net, data):
    """Beside torch's own, given each task's number of steps."""
    stream = TaskStream(data, Growing(seed=0), num_tasks=3, batch_size=16, seed=0)
    length = Length(stream, 2, stream.num_batches)
    make = partial(lr_scheduler.OneCycleLR, max_lr=0.5)
    training = training_of(net, partial(SGD, lr=0.1, momentum=0.5), stream, length=length, scheduler=make, scheduler_every=every)
    for index, count in enumerate(steps):
        optimizer = SGD(copy.deepcopy(net).parameters(), lr=0.1, momentum=0.5)
        scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=count)
        optimizer._opt_called = True
        training.begin(stream[index])
        for epoch in range(2):
            for batch in stream.epoch(stream[index], epoch):
                training.learn(stream[index], batch)
                if every == "step":
                    scheduler.step()
                    assert rate(training) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
            training.end_epoch(stream[index], {"loss": 1.0})
            if every == "epoch":
                scheduler.step()
                assert rate(training) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)


CYCLE, WAVE = lr_scheduler.OneCycleLR, partial(lr_scheduler.CyclicLR, base_lr=0.1)
NO_MOMENTUM = "learner.scheduler.cycle_momentum=true: the optimizer ({}) has no momentum that could be moved; give "
NO_MOMENTUM += "learner.scheduler.cycle_momentum=false"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"optimizer": Adam, "scheduler": lr_scheduler.ReduceLROnPlateau, "scheduler_every": "step"},
            "learner.scheduler_every=step: ReduceLROnPlateau looks at an epoch's loss; give learner.scheduler_every=epoch",
        ),
        ({"optimizer": Adagrad, "scheduler": partial(CYCLE, max_lr=0.5)}, NO_MOMENTUM.format("Adagrad")),
        ({"optimizer": Adagrad, "scheduler": partial(WAVE, max_lr=0.5)}, NO_MOMENTUM.format("Adagrad")),
        (
            {"optimizer": partial(SGD, lr=0.1), "scheduler": partial(WAVE, max_lr=0.5)},
            NO_MOMENTUM.format("SGD") + ", or a learner.optimizer.momentum above 0",
        ),
        (
            {"optimizer": Adam, "scheduler": partial(CYCLE, max_lr=0.5), "restart_scheduler": False},
            "learner.scheduler.total_steps=null: that is as many as a task has, for a schedule that begins anew with each; give "
            "their number, or learner.restart_scheduler=true",
        ),
        (
            {"optimizer": Adam, "scheduler": partial(CYCLE, max_lr=0.5, total_steps=5), "scheduler_every": "step"},
            "learner.scheduler: the cycle has 5 steps, but it steps 12 times in a task; give learner.scheduler.total_steps=12, "
            "or null for as many as each task has",
        ),
        (
            {"optimizer": Adam, "scheduler": partial(CYCLE, max_lr=0.5, total_steps=9), "restart_scheduler": False},
            "learner.scheduler: the cycle has 9 steps, but it steps 10 times in all tasks; give "
            "learner.scheduler.total_steps=10, or learner.restart_scheduler=true",
        ),
    ],
)
def test_a_schedule_that_cannot_go_on_to_the_end_is_refused_before_it_begins(net, stream, arguments, sentence):
    with pytest.raises(Fault) as fault:
        training_of(net, stream=stream, length=Length(stream, 2, stream.num_batches), **arguments)
    assert str(fault.value) == sentence


def test_a_cycle_that_leaves_the_momentum_alone_needs_none(net, stream):
    make = partial(CYCLE, max_lr=0.5, cycle_momentum=False)
    training = training_of(net, Adagrad, stream, length=Length(stream, 2, stream.num_batches), scheduler=make)
    train(training, stream, 0, epochs=2)


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": LBFGS}, "optimizer LBFGS evaluates the loss several times a step"),
        ({"optimizer": Adam, "gradient_clip": 0.0}, "gradient_clip is 0.0; a norm above 0, or null"),
        (
            {"optimizer": Adam, "regularizers": {"one": L2(1.0)}, "interventions": {"one": ResetOptimizer()}},
            "regularizers and interventions both have a part called one",
        ),
        ({"optimizer": Adam, "regularizers": {"gradient": L2(1.0)}}, "a part is called gradient, which the learner's own"),
    ],
)
def test_what_cannot_work_is_refused(net, stream, arguments, message):
    with pytest.raises(ValueError, match=message):
        training_of(net, stream=stream, **arguments)


def test_an_intervention_that_never_acts_is_refused(net, stream):
    with pytest.raises(
        TypeError, match="intervention idle is a Intervention; it must be an AfterStep, an AfterEpoch or an AtSwitch"
    ):
        training_of(net, Adam, stream, interventions={"idle": Intervention()})


class Grows(AtSwitch):
    def at_switch(self, subject, context):
        return subject._replace(net={**subject.net, "4.weight": torch.zeros(4, 4)})


class Widens(AfterStep):
    def after_step(self, subject, context):
        return subject._replace(net={"3.bias": torch.zeros(5)})


class AppendsLayer(EagerAtSwitch):
    def at_switch(self, net, optimizer, task):
        net.append(nn.Linear(4, 4))


class DropsLayer(EagerAtSwitch):
    def at_switch(self, net, optimizer, task):
        del net[3]


class Forgetful(AfterStep):
    def init(self, start):
        return {"kept": torch.zeros(())}

    def after_step(self, subject, context):
        return subject._replace(memory={"kept": torch.zeros(3)})


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (Grows(), r"grower changed the net: 4.weight was not there and is \[4, 4\] of float32 now"),
        (Widens(), r"grower changed the net: 3.bias was \[4\] of float32 and is \[5\] of float32 now"),
        (AppendsLayer(), r"AppendsLayer changed the net: 4.weight was not there"),
        (DropsLayer(), r"DropsLayer changed the net: 3.weight was \[4, 12\] of float32 and is not there now"),
        (Forgetful(), r"grower changed the shape of the learner's parts.grower.kept from \[\] to \[3\]"),
    ],
)
def test_a_part_that_changes_names_or_shapes_is_refused_before_training(net, stream, part, sentence):
    training = training_of(net, partial(SGD, lr=0.1), stream, interventions={"grower": part})
    with pytest.raises(Fault, match=sentence):
        training.rehearse(*first_batch(stream))


def test_a_rehearsal_leaves_no_trace(net, stream):
    parts = {"shrink": Shrink(1), "head": NewHead()}
    training = training_of(net, Adam, stream, interventions=parts)
    before, state = checkpoint.cloned(training.state_dict()), torch.get_rng_state()
    training.rehearse(*first_batch(stream))
    assert checkpoint.first_difference(before, training.state_dict()) is None
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(vector(training.net), torch.cat([before["state"]["net"][n].flatten() for n, _ in net.named_parameters()]))


def test_why_a_learner_runs_eager_names_the_part(net, stream):
    assert training_of(net, Adam, stream, regularizers={"l2": L2(0.1)}).learner.why_eager() is None
    own = training_of(net, Rprop, stream).learner.why_eager()
    assert own == "learner.optimizer: Rprop steps by torch's own code, in place, so this learner runs eager"
    part = training_of(net, partial(SGD, lr=0.1), stream, regularizers={"toward": EagerTowardStart(0.1)}).learner.why_eager()
    assert part == "learner.regularizers.toward: EagerTowardStart changes what it is given in place, so this learner runs eager"


def test_a_negative_penalty_is_refused():
    with pytest.raises(ValueError, match="weight is -1; the weight of a penalty is 0 or more"):
        L2(-1)


def test_learners_see_the_same_tasks_and_batches_whatever_they_draw(data):
    """The predecessor's drifts drew from the default generator, so that each learner had tasks of its own."""
    seen = []
    for parts in ({}, {"interventions": {"shrink": Shrink(1), "head": NewHead()}}):
        stream = TaskStream(data, Permuted(seed=0), num_tasks=3, batch_size=16, seed=0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Dropout(0.5), nn.Linear(12, 4)).to(data.device)
        training = training_of(net, Adam, stream, **parts)
        prints = []
        for index in range(3):
            train(training, stream, index)
            prints += fingerprint(stream[index], data) + [batch.inputs for batch in stream.epoch(stream[index], 1)]
        seen.append(prints)
    assert same(*seen)


def test_every_parameter_learns_the_tasks(net, stream):
    training = training_of(net, partial(SGD, lr=0.1, momentum=0.9), stream)
    losses = train(training, stream, 0, epochs=10)
    assert sum(losses[-6:]) < 0.3 * sum(losses[:6])
