"""The Gauss–Newton matrix by either method, its exact diagonal, and the memory that a product takes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import cases, mlp
from surfaces import surface_of
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from loss_landscape import GaussNewtonOperator, HessianOperator, LossSurface

ALL = {case.name: case for case in cases()}


def dense(operator: GaussNewtonOperator) -> Tensor:
    return operator @ torch.eye(operator.size, dtype=operator.dtype)


def wide(batch: int = 32, outputs: int = 16384) -> tuple[nn.Module, Tensor, Tensor]:
    """A net whose memory is its outputs."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(32, 4), nn.Tanh(), nn.Linear(4, outputs))
    return net, torch.randn(batch, 32), torch.randint(0, outputs, (batch,))


@pytest.mark.parametrize("name", ALL)
def test_streamed_products_are_the_retained_ones(name):
    case = ALL[name]
    surface = LossSurface(case.model, case.loss_fn, case.batches, dtype=torch.float64)
    streamed = GaussNewtonOperator(surface, method="streamed")
    torch.testing.assert_close(dense(streamed), dense(GaussNewtonOperator(surface, method="retained")), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_the_diagonal_is_the_matrixs(name):
    case = ALL[name]
    surface = LossSurface(case.model, case.loss_fn, case.batches, dtype=torch.float64)
    operator = GaussNewtonOperator(surface)
    torch.testing.assert_close(operator.diagonal(), dense(operator).diagonal(), rtol=1e-9, atol=1e-12)


def test_the_diagonal_has_the_regularisers_part():
    surface = surface_of(regularizer=lambda model: sum(p.pow(4).sum() for p in model.parameters()), dtype=torch.float64)
    operator = GaussNewtonOperator(surface)
    torch.testing.assert_close(operator.diagonal(), dense(operator).diagonal(), rtol=1e-9, atol=1e-12)


def test_softmax_regressions_diagonal_is_the_closed_form():
    """Σ pₖ(1 − pₖ) xⱼ² / N for the weight of class k and input j."""
    torch.manual_seed(0)
    net, x = nn.Linear(4, 3, bias=False).double(), torch.randn(10, 4, dtype=torch.float64)
    surface = LossSurface(net, nn.CrossEntropyLoss(), [(x[:7], torch.arange(7) % 3), (x[7:], torch.arange(3))])
    p = net(x).softmax(dim=1).detach()
    expected = torch.einsum("nk,nj->kj", p * (1 - p), x.square()).reshape(-1) / 10
    torch.testing.assert_close(GaussNewtonOperator(surface).diagonal(), expected, rtol=1e-10, atol=0)


class Once(torch.autograd.Function):
    """A square without a forward derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * slope


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Once.apply(x)


def test_the_method_is_by_the_number_of_outputs():
    net, x, y = wide(batch=4)
    assert GaussNewtonOperator(LossSurface(net, nn.CrossEntropyLoss(), [(x, y)])).method == "streamed"
    few = GaussNewtonOperator(surface_of())
    assert (few.method, repr(few)) == ("retained", f"GaussNewtonOperator(P={few.size}, method='retained', float32, cpu)")
    without_forward_derivative = LossSurface(nn.Sequential(net, Squared()), nn.CrossEntropyLoss(), [(x, y)])
    assert GaussNewtonOperator(without_forward_derivative).method == "retained"
    with pytest.raises(ValueError, match="method must be 'auto', 'retained', 'streamed', 'finite_differences', got 'forward'"):
        GaussNewtonOperator(surface_of(), method="forward")


class LiveBytes(TorchDispatchMode):
    """The bytes of tensors made inside that live at the same time: `peak` is the most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._live: dict[int, int] = {}
        self._given: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        arguments = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self._given |= {leaf.untyped_storage()._cdata for leaf in arguments} - self._live.keys()
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        self.peak = max(self.peak, self.now)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._live and key not in self._given:
            self._live[key] = storage.nbytes()
            self.now += storage.nbytes()
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._live.pop(key)


def peak_of(work: Callable[[], object]) -> int:
    with LiveBytes() as mode:
        work()
    return mode.peak


def test_live_bytes_are_those_of_tensors_made_inside():
    given = torch.zeros(1000)

    def work() -> None:
        kept = given + 1  # 4000 bytes
        (kept * 2).sum()  # 4000 more, and 4
        kept.add_(1).view(10, 100)  # none

    assert peak_of(work) == 8004


def training_step(net: nn.Module, x: Tensor, y: Tensor) -> None:
    nn.functional.cross_entropy(net(x), y).backward()


def test_a_product_takes_about_a_training_steps_memory_with_many_outputs():
    """The step: outputs, log-probabilities and their two gradients of 32 × 16384 float32 live together at least."""
    net, x, y = wide()
    outputs = 32 * 16384 * 4
    step = peak_of(lambda: training_step(net, x, y))
    assert step > 2 * outputs
    operator, vector = GaussNewtonOperator(LossSurface(net, nn.CrossEntropyLoss(), [(x, y)])), torch.randn(16384 * 5 + 132)
    assert peak_of(lambda: operator @ vector) < 1.7 * step
    retained = GaussNewtonOperator(operator.surface, method="retained", memory_budget_mb=0)
    assert peak_of(lambda: retained @ vector) > 4 * step


class TestByName:
    def test_a_tensor_for_each_parameter_comes_back_as_one(self):
        surface = surface_of()
        for operator in (HessianOperator(surface), GaussNewtonOperator(surface)):
            vector = torch.randn(surface.size, generator=torch.Generator().manual_seed(0))
            found = operator @ surface.layout.unflatten(vector)
            assert list(found) == list(surface.layout.names)
            assert torch.equal(surface.layout.flatten(found), operator @ vector)

    def test_one_that_is_missing_is_told(self):
        with pytest.raises(ValueError, match=r"a tensor for each of the 4 parameters, but '0.weight' is missing"):
            HessianOperator(surface_of()) @ {"weight": torch.zeros(3)}


@pytest.mark.parametrize("given", [mlp(), nn.CrossEntropyLoss()])
def test_what_is_no_surface_is_answered_with_what_to_write(given):
    kind = rf"a net \({type(given).__name__}\)"
    for operator in (HessianOperator, GaussNewtonOperator):
        name = operator.__name__
        with pytest.raises(TypeError, match=rf"{name} takes a surface, got {kind}; write {name}\(LossSurface\(net, loss_fn, b"):
            operator(given)
