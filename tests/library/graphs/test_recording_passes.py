"""Recordings are rewritten to fewer passes over memory: what they compute stays as it was, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from loss_landscape import HessianOperator, LossSurface
from loss_landscape.graphs.recording import Recording
from loss_landscape.graphs.recording_passes import RecordingOptimizer

aten = torch.ops.aten
VECTOR = torch.tensor([1.0, -2.0, 3.0])


def convnet(pooling: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), pooling, nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
    )


def surface(net: nn.Module) -> LossSurface:
    draw = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(5, 2, 9, 9, generator=draw), torch.randint(0, 3, (5,), generator=draw)
    net(inputs)
    return LossSurface(net, nn.CrossEntropyLoss(), [(inputs, targets)])


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """The recordings that are made from now on."""
    made: list[Recording] = []
    begin = Recording.__init__

    def kept(recording: Recording, *arguments: object) -> None:
        begin(recording, *arguments)
        made.append(recording)

    monkeypatch.setattr(Recording, "__init__", kept)
    return made


def operations(recording: Recording) -> list[object]:
    return [node.target for node in recording._play.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize(
    "pooling",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.MaxPool2d(3, stride=1, dilation=2),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.AvgPool2d(2),
        nn.Identity(),
    ],
    ids=str,
)
@pytest.mark.parametrize("in_place", [False, True])
def test_products_with_the_hessian_keep_their_bits(pooling, in_place, monkeypatch):
    torch.manual_seed(0)
    net = convnet(pooling)
    net[1].inplace = in_place
    on = surface(net)
    vectors = torch.randn(on.size, 3)
    lean = HessianOperator(on, method="traced") @ vectors
    monkeypatch.setattr(RecordingOptimizer, "rewrite", lambda self: None)
    assert torch.equal(lean, HessianOperator(on, method="traced") @ vectors)


def test_masks_see_only_what_a_pooling_lets_through(monkeypatch):
    torch.manual_seed(0)
    made = recorded(monkeypatch)
    on = surface(convnet(nn.MaxPool2d(2)))
    HessianOperator(on, method="traced") @ torch.randn(on.size)
    planes = torch.Size([5, 3, 9, 9])
    for node in made[0]._play.graph.nodes:
        if node.target in (
            aten.threshold_backward.default,
            aten.threshold_backward.grad_input,
            aten.add.Tensor,
            aten.add_.Tensor,
        ):
            assert node.meta["spec"].shape != planes
    assert aten.zeros_like.default not in operations(made[0])
    assert aten.copy_.default not in operations(made[0])


def test_played_again_it_gives_the_same_and_leaves_its_inputs_and_constants():
    first, second = torch.randn(3, 3), torch.randn(3, 3)

    def function(v: Tensor) -> tuple[Tensor, ...]:
        return (first @ v.view(3, 1) + second @ v.view(3, 1)).mul(2), v + 0 * v

    recording = Recording(function, [VECTOR.clone()])
    assert aten.add_.Tensor in operations(recording)
    given = torch.tensor([0.5, 0.25, -4.0])
    once, again = recording(given), recording(given)
    assert given.tolist() == [0.5, 0.25, -4.0]
    for one, other, expected in zip(once, again, function(given), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, expected)


def viewed(v: Tensor) -> Sequence[Tensor]:
    doubled = v * 2
    return doubled[:2], doubled + v


def read_twice(v: Tensor) -> Sequence[Tensor]:
    doubled = v * 2
    return doubled + v, doubled + doubled


def written_after(v: Tensor) -> Sequence[Tensor]:
    total = v + torch.zeros(3)
    total.mul_(3)
    return total, v + v


def zeros_written_to(v: Tensor) -> Sequence[Tensor]:
    room = torch.zeros_like(v * 1)
    room[:2].copy_(v[:2])
    return (room + v,)


def broadcast(v: Tensor) -> Sequence[Tensor]:
    return (v * 2 + torch.ones(2, 3) * 0, (v * 2).double() + v * 3)


def scaled_sum(v: Tensor) -> Sequence[Tensor]:
    return torch.add(v, v * 3, alpha=4), torch.add(torch.zeros(3), v * 3, alpha=2), torch.sub(v, v * 2, alpha=2), v - v * 3


def constant_that_cancels(v: Tensor) -> Sequence[Tensor]:
    return ((v + torch.ones(3)) - torch.ones(3),)


def summand_written_after(v: Tensor) -> Sequence[Tensor]:
    doubled = v * 2
    total = torch.zeros(3) + doubled
    doubled.mul_(3)
    return total, doubled


def copied(v: Tensor) -> Tensor:
    return aten._new_zeros_with_same_feature_meta(v, torch.zeros(3)).copy_(v)


def copy_written_to(v: Tensor) -> Sequence[Tensor]:
    doubled = v * 2
    copy = copied(doubled)
    copy.mul_(3)
    return copy, doubled


def original_written_to(v: Tensor) -> Sequence[Tensor]:
    doubled = v * 2
    copy = copied(doubled)
    doubled.mul_(3)
    return copy, doubled


def pooled_after_a_write(v: Tensor) -> Sequence[Tensor]:
    plane = v.expand(1, 3, 3) * 2
    masked = aten.threshold_backward(plane, torch.arange(9.0).reshape(1, 3, 3) - 4, 0)
    plane.mul_(3)
    return masked.view(1, 9).gather(-1, torch.tensor([[1, 5, 8]])), plane


@pytest.mark.parametrize(
    "function",
    [
        viewed,
        read_twice,
        written_after,
        zeros_written_to,
        broadcast,
        scaled_sum,
        constant_that_cancels,
        summand_written_after,
        copy_written_to,
        original_written_to,
        pooled_after_a_write,
    ],
)
def test_the_rules_keep_off_what_they_would_change(function):
    for found, expected in zip(Recording(function, [VECTOR.clone()])(VECTOR), function(VECTOR.clone()), strict=True):
        assert torch.equal(found, expected)
