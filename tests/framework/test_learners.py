"""One step against closed forms, and what a learner is made of."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import LBFGS, SGD, Adam, lr_scheduler

from taskshift.data.synthetic_images import synthetic_images
from taskshift.learners.interventions import Intervention, ResetOptimizer
from taskshift.learners.learner import Learner
from taskshift.learners.regularizers import L2
from taskshift.shifts.permuted import Permuted
from taskshift.stream import TaskStream
from tests.framework.learning import NewHead, Shrink, TowardStart, train, vector
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
    return stream[index], *next(stream.epoch(stream[index], 0))


def gradient_of(net, task, inputs, targets):
    loss = task.loss(net(inputs), targets)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))]), loss.detach()


def test_a_step_follows_the_gradient_and_reports_the_loss_before_it(net, stream):
    task, inputs, targets = first_batch(stream)
    (gradient, loss), start, outputs = gradient_of(net, task, inputs, targets), vector(net), net(inputs).detach()
    step = Learner(net, partial(SGD, lr=0.1)).learn(task, inputs, targets)
    torch.testing.assert_close(vector(net), start - 0.1 * gradient)
    assert torch.equal(step.loss, loss)
    assert torch.equal(step.outputs, outputs)
    assert not step.loss.requires_grad
    assert not step.outputs.requires_grad


def test_gradients_do_not_accumulate_from_step_to_step(net, stream):
    learner = Learner(net, partial(SGD, lr=0.1))
    train(learner, stream)
    task, inputs, targets = first_batch(stream, 1)
    (gradient, _), start = gradient_of(net, task, inputs, targets), vector(net)
    learner.learn(task, inputs, targets)
    torch.testing.assert_close(vector(net), start - 0.1 * gradient)


@pytest.mark.parametrize("clip", [1e-3, 1e6])
def test_clipping_bounds_the_steps_length_and_keeps_its_direction(net, stream, clip):
    task, inputs, targets = first_batch(stream)
    (gradient, _), start = gradient_of(net, task, inputs, targets), vector(net)
    Learner(net, partial(SGD, lr=1.0), gradient_clip=clip).learn(task, inputs, targets)
    wanted = gradient * min(1.0, clip / gradient.norm().item())
    torch.testing.assert_close(vector(net), start - wanted, rtol=1e-4, atol=1e-7)


def test_learning_puts_the_net_in_train_mode(net, stream):
    net.eval()
    Learner(net, partial(SGD, lr=0.1)).learn(*first_batch(stream))
    assert all(module.training for module in net.modules())


def test_frozen_parameters_are_left_alone(net, stream):
    net[1].weight.requires_grad_(False)
    before = net[1].weight.clone()
    learner = Learner(net, partial(SGD, lr=0.1), regularizers={"l2": L2(1.0)})
    assert "1.weight" not in learner.parameters, "regularisers see what is trained"
    train(learner, stream)
    assert torch.equal(net[1].weight, before)


def test_l2_equals_weight_decay_under_sgd(net, stream):
    """Coupled decay is half the squared norm's gradient; with the loss that is recorded without it."""
    twin = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4)).to(next(net.parameters()).device)
    twin.load_state_dict(net.state_dict())
    recorded = train(Learner(net, partial(SGD, lr=0.1, momentum=0.9), regularizers={"l2": L2(0.05)}), stream)
    decayed = train(Learner(twin, partial(SGD, lr=0.1, momentum=0.9, weight_decay=0.05)), stream)
    torch.testing.assert_close(vector(net), vector(twin))
    torch.testing.assert_close(recorded, decayed)


def test_l2_is_half_the_squared_norm(net):
    penalty = L2(0.3).penalty(dict(net.named_parameters()))
    torch.testing.assert_close(penalty.item(), 0.15 * float(vector(net).double().square().sum()), rtol=1e-6, atol=0)


def test_the_reported_loss_is_without_the_regulariser(net, stream):
    task, inputs, targets = first_batch(stream)
    _, loss = gradient_of(net, task, inputs, targets)
    assert torch.equal(Learner(net, partial(SGD, lr=0.1), regularizers={"l2": L2(10.0)}).learn(task, inputs, targets).loss, loss)


def test_interventions_and_regularisers_fit_without_changing_the_learner(net, stream):
    parts = {"regularizers": {"toward": TowardStart(0.1)}, "interventions": {"shrink": Shrink(2), "head": NewHead()}}
    learner = Learner(net, Adam, **parts)
    train(learner, stream, 0)
    assert learner.interventions["shrink"].count == 6
    head = net[3].weight.clone()
    learner.begin(stream[1])
    assert not torch.equal(net[3].weight, head)
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_switch_interventions_skip_the_first_task(net, stream):
    head = net[3].weight.clone()
    Learner(net, Adam, interventions={"head": NewHead()}).begin(stream[0])
    assert torch.equal(net[3].weight, head)


def test_reset_optimizer_forgets_momentum_at_a_switch(net, stream):
    learner = Learner(net, partial(SGD, lr=0.1, momentum=0.9), interventions={"reset": ResetOptimizer()})
    train(learner, stream, 0)
    learner.begin(stream[1])
    task, inputs, targets = first_batch(stream, 1)
    (gradient, _), start = gradient_of(net, task, inputs, targets), vector(net)
    learner.learn(task, inputs, targets)
    torch.testing.assert_close(vector(net), start - 0.1 * gradient)


@pytest.mark.parametrize(("every", "per_task"), [("epoch", 2), ("step", 12)])
@pytest.mark.parametrize("restart", [True, False])
def test_schedulers_step_as_told_and_restart_by_option(net, stream, every, per_task, restart):
    make = partial(lr_scheduler.ExponentialLR, gamma=0.5)
    learner = Learner(net, partial(SGD, lr=0.1), make, scheduler_every=every, restart_scheduler=restart)
    for index in range(3):
        train(learner, stream, index, epochs=2)
        halvings = per_task * (1 if restart else index + 1)
        assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**halvings)


def test_a_restart_puts_back_all_that_the_scheduler_changed(net, stream):
    """One-cycle moves momentum too, and writes keys of its own."""
    make = partial(lr_scheduler.OneCycleLR, max_lr=0.5, total_steps=7)
    learner = Learner(net, partial(SGD, lr=0.1, momentum=0.9), make, scheduler_every="step")
    before = dict(learner.optimizer.param_groups[0], params=None)
    train(learner, stream, 0)
    assert dict(learner.optimizer.param_groups[0], params=None) != before
    learner.begin(stream[1])
    assert dict(learner.optimizer.param_groups[0], params=None) == before
    train(learner, stream, 2)


def test_plateau_looks_at_the_epochs_loss(net, stream):
    learner = Learner(net, partial(SGD, lr=0.1), partial(lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=0))
    for loss in (1.0, 0.9, 0.95, 0.96):
        learner.end_epoch(stream[0], loss)
    assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": LBFGS}, "optimizer LBFGS evaluates the loss several times a step"),
        ({"optimizer": Adam, "gradient_clip": 0.0}, "gradient_clip is 0.0; a norm above 0, or null"),
        (
            {"optimizer": Adam, "scheduler": lr_scheduler.ReduceLROnPlateau, "scheduler_every": "step"},
            "scheduler_every is 'step' but ReduceLROnPlateau",
        ),
    ],
)
def test_what_cannot_work_is_refused(net, arguments, message):
    with pytest.raises(ValueError, match=message):
        Learner(net, **arguments)


def test_an_intervention_that_never_acts_is_refused(net):
    with pytest.raises(TypeError, match="intervention idle is a Intervention; it must be an AfterStep or an AtSwitch"):
        Learner(net, Adam, interventions={"idle": Intervention()})


def test_a_negative_penalty_is_refused():
    with pytest.raises(ValueError, match="weight is -1; an L2 penalty's weight is 0 or more"):
        L2(-1)


def test_learners_see_the_same_tasks_and_batches_whatever_they_draw(data):
    """The predecessor's drifts drew from the default generator, so that each learner had tasks of its own."""
    seen = []
    for parts in ({}, {"interventions": {"shrink": Shrink(1), "head": NewHead()}}):
        stream = TaskStream(data, Permuted(seed=0), num_tasks=3, batch_size=16, seed=0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Dropout(0.5), nn.Linear(12, 4)).to(data.device)
        learner = Learner(net, Adam, **parts)
        prints = []
        for index in range(3):
            train(learner, stream, index)
            prints += fingerprint(stream[index], data) + [batch.inputs for batch in stream.epoch(stream[index], 1)]
        seen.append(prints)
    assert same(*seen)


def test_every_parameter_learns_the_tasks(net, stream):
    learner = Learner(net, partial(SGD, lr=0.1, momentum=0.9))
    losses = train(learner, stream, 0, epochs=10)
    assert sum(losses[-6:]) < 0.3 * sum(losses[:6])
