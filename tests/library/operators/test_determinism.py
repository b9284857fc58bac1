from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from nets import Remembers, cases, mlp
from torch import Tensor, nn
from torch.nn import functional as F

from loss_landscape import LossSurface
from loss_landscape.objective.batches import Batches
from loss_landscape.operators.determinism import check_deterministic


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_ordinary_nets_pass(case):
    check_deterministic(LossSurface(case.model, case.loss_fn, case.batches))


@pytest.mark.parametrize("batch_norm", ["running", "batch", "recompute"])
def test_batch_norm_and_dropout_pass_as_the_surface_uses_them(batch_norm):
    net = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3)).train()
    state = torch.get_rng_state()
    surface = LossSurface(net, nn.CrossEntropyLoss(), [data()], batch_norm=batch_norm)
    check_deterministic(surface)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in surface.objective.net.module.modules())


class TrainsInside(Remembers):
    """Puts one of its modules into training mode in its forward pass."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        self.get_submodule(self.name).train()
        return super().forward(x)


def always_training() -> nn.Module:
    class Sampled(nn.Dropout):
        def train(self, mode: bool = True) -> nn.Module:
            return super().train(True)

    return nn.Sequential(nn.Linear(6, 5), nn.Sequential(Sampled(0.3)), nn.Linear(5, 3))


class Draws(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.net, self.change, self.calls = mlp(), change, 0

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self, self.net(x))

    def counted(self) -> int:
        self.calls += 1
        return self.calls


CULPRITS = {
    "functional dropout": (Draws(lambda _, y: F.dropout(y)), r"the net \(Draws\) draws random numbers \(aten.bernoulli"),
    "noise": (Draws(lambda _, y: y + torch.randn(3)), r"the net \(Draws\) draws random numbers \(aten.randn"),
    "dropout in forward": (TrainsInside("drop"), r"drop \(Dropout\) is active though the net is in eval mode"),
    "dropout by train()": (always_training(), r"1\.0 \(Sampled\) is active though the net is in eval mode"),
    "batch norm in forward": (TrainsInside("norm"), r"norm \(BatchNorm1d\) normalises by each batch's own statistics"),
    "functional batch norm": (
        Draws(lambda _, y: F.batch_norm(y, torch.zeros(3), torch.ones(3), training=True)),
        r"the net \(Draws\) normalises by each batch's own statistics",
    ),
    "a counter": (Draws(lambda self, y: y * (1 + 0.01 * self.counted())), r"the net remembers its calls: calls of it changed"),
    "NumPy": (Draws(lambda _, y: y * (1 + np.random.rand())), r"draws random numbers of NumPy, .* one draw"),
    "Python": (Draws(lambda _, y: y * (1 + random.random())), r"draws random numbers of Python, .* one draw"),
}


@pytest.mark.parametrize("name", CULPRITS)
def test_the_culprit_is_named(name):
    net, message = CULPRITS[name]
    with pytest.raises(ValueError, match=message):
        check_deterministic(LossSurface(net, nn.CrossEntropyLoss(), [data()]))


def test_a_loss_that_draws_is_named():
    def noisy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]) + 0.1 * torch.rand(3), batch[1])

    with pytest.raises(ValueError, match=r"the loss draws random numbers \(aten.rand"):
        check_deterministic(LossSurface(mlp(), batches=[data()], batch_loss=noisy))


def test_a_gradient_of_its_own_mind_is_noticed():
    class Jitters(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx, slope: Tensor) -> Tensor:
            return slope * (1 + np.random.rand())

    with pytest.raises(ValueError, match="the gradient differs by"):
        check_deterministic(LossSurface(Draws(lambda _, y: Jitters.apply(y)), nn.CrossEntropyLoss(), [data()]))


@pytest.mark.parametrize("what", ["order", "augmentation", "number"])
def test_batches_that_differ_between_passes_are_named(what, monkeypatch):
    class Changes:
        """Too large to be kept, and another one on every pass."""

        passes = 0

        def __iter__(self):
            Changes.passes += 1
            x, y = data()
            turn = Changes.passes % 2
            parts = [(x[:4], y[:4]), (x[4:], y[4:])]
            if what == "order":
                yield from parts[:: 1 if turn else -1]
            elif what == "augmentation":
                yield from [(part[0] + turn, part[1]) for part in parts]
            else:
                yield from parts[: 1 + turn]

    surface = LossSurface(mlp(), nn.CrossEntropyLoss(), [data()])
    monkeypatch.setattr(Batches.__init__, "__defaults__", (100,))
    surface.objective = replace(surface.objective, batches=Batches(Changes(), surface.device, None))
    with pytest.raises(ValueError, match=r"batch \d is another one in the second pass over the data: the loader shuffles"):
        check_deterministic(surface)
