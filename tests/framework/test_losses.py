"""Losses of tasks against closed forms and autograd, as the loss surface uses them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.func import functional_call, hessian, jvp, vmap
from torch.nn import functional as F

from taskshift.data.synthetic_images import synthetic_images
from taskshift.shifts.classification import Accuracy
from taskshift.shifts.drifting_values import DriftingValues
from taskshift.shifts.losses import CrossEntropy, LabelValueMSE
from taskshift.stream import TaskStream

ACTIVE = torch.tensor([False, True, False, True, True])
NUMBERS = ACTIVE.nonzero().squeeze(1)
VALUES = torch.tensor([-1.5, 0.0, 0.25, 2.0, 7.0])
CASES = {"all": CrossEntropy(), "active": CrossEntropy(ACTIVE), "values": LabelValueMSE(VALUES)}


@pytest.fixture
def batch():
    rng = torch.Generator().manual_seed(0)
    return torch.randn(7, 5, generator=rng, dtype=torch.float64), NUMBERS[torch.randint(3, (7,), generator=rng)]


def by_hand(name, outputs, targets):
    """The same formulas, one example at a time."""
    terms = []
    for row, target in zip(outputs, targets, strict=True):
        if name == "values":
            terms.append((row[target] - VALUES[target]) ** 2)
        else:
            part = row if name == "all" else torch.stack([row[i] for i in (1, 3, 4)])
            terms.append(part.exp().sum().log() - row[target])
    return torch.stack(terms)


@pytest.mark.parametrize("name", CASES)
def test_loss_is_the_mean_over_examples_and_a_copy_sums(name, batch):
    loss, wanted = CASES[name], by_hand(name, *batch)
    torch.testing.assert_close(loss(*batch), wanted.mean(), rtol=1e-13, atol=0)
    total = copy.copy(loss)
    total.reduction = "sum"
    torch.testing.assert_close(total(*batch), wanted.sum(), rtol=1e-13, atol=0)
    assert loss.reduction == "mean"


@pytest.mark.parametrize("name", CASES)
def test_loss_has_second_derivatives_by_forward_over_reverse(name, batch):
    outputs, targets = batch
    ours = hessian(lambda at: CASES[name](at, targets))(outputs)
    theirs = torch.autograd.functional.hessian(lambda at: by_hand(name, at, targets).mean(), outputs)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_loss_works_under_vmap_jvp_and_functional_call(name, batch):
    outputs, targets = batch
    stack = torch.stack([outputs, 2 * outputs, -outputs])
    each = vmap(lambda one: functional_call(CASES[name], dict(CASES[name].named_buffers()), (one, targets)))(stack)
    torch.testing.assert_close(each, torch.stack([by_hand(name, one, targets).mean() for one in stack]))
    _, slope = jvp(lambda at: CASES[name](at, targets), (outputs,), (torch.ones_like(outputs),))
    outputs.requires_grad_()
    (gradient,) = torch.autograd.grad(by_hand(name, outputs, targets).mean(), outputs)
    torch.testing.assert_close(slope, gradient.sum())


def test_a_target_outside_the_active_outputs_has_an_infinite_loss():
    assert CrossEntropy(ACTIVE)(torch.zeros(1, 5), torch.tensor([2])).item() == float("inf")


def test_outputs_that_take_no_part_have_no_gradient(batch):
    outputs, targets = batch
    outputs = (1e3 * outputs).requires_grad_()
    (gradient,) = torch.autograd.grad(CrossEntropy(ACTIVE)(outputs, targets), outputs)
    assert (gradient[:, ~ACTIVE] == 0).all()
    assert (gradient[:, ACTIVE] != 0).any()


def test_one_recording_serves_tasks_with_other_outputs(batch):
    """What differs between tasks is a tensor: a recorded loss takes another task's mask as an input."""
    from torch.fx.experimental.proxy_tensor import make_fx

    outputs, targets = batch
    loss = CrossEntropy(ACTIVE)
    recorded = make_fx(lambda active, at, of: functional_call(loss, {"active": active}, (at, of)))(ACTIVE, outputs, targets)
    wider = torch.tensor([True, True, False, True, True])
    for active in (ACTIVE, wider):
        torch.testing.assert_close(recorded(active, outputs, targets), CrossEntropy(active)(outputs, targets), rtol=1e-14, atol=0)
    assert recorded(wider, outputs, targets) > recorded(ACTIVE, outputs, targets)


def test_losses_move_with_their_tensors():
    moved = CrossEntropy(ACTIVE).to("meta")
    assert {buffer.device.type for buffer in moved.buffers()} == {"meta"}


def test_accuracy_is_one_value_an_example():
    outputs = torch.tensor([[9.0, 1.0, 0.0, 2.0, 0.0], [9.0, 0.0, 3.0, 1.0, 2.0]])
    targets = torch.tensor([3, 3])
    assert Accuracy(ACTIVE)(outputs, targets).tolist() == [1.0, 0.0]
    assert Accuracy()(outputs, targets).tolist() == [0.0, 0.0]


def test_evaluation_sees_the_loss_that_is_trained():
    """The predecessor analysed a one-hot MSE over all outputs where it trained the label's output alone."""
    data = synthetic_images(num_classes=5, side=4, train_size=20, test_size=10)
    stream = TaskStream(data, DriftingValues(seed=0), num_tasks=2, batch_size=8, seed=0)
    task = stream[1]
    inputs, targets = next(stream.batches(task, task.train))
    assert targets.dtype == torch.int64
    outputs = torch.randn(8, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(task.loss(outputs, targets), outputs)
    assert (gradient != 0).sum() == 8, "one output an example"
    assert torch.equal(gradient.nonzero()[:, 1], targets)
    values = torch.tensor(stream.shift.values(data, 1))
    torch.testing.assert_close(gradient[range(8), targets], 2 / 8 * (outputs[range(8), targets] - values[targets]).detach())
    assert F.mse_loss(outputs, F.one_hot(targets, 5).float()) != task.loss(outputs, targets)
