from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor

from loss_landscape.graphs.recording import Recording
from loss_landscape.graphs.tracing import UntraceableError


def played(function, *others: Tensor) -> tuple[Tensor, ...]:
    """The results for `others`, by the operations recorded for other inputs."""
    return Recording(function, [torch.linspace(-1, 1, other.numel()).view(other.shape) for other in others])(*others)


def test_a_linear_function_is_played_for_other_inputs():
    matrix, vector = torch.randn(4, 3), torch.randn(3)

    def function(v: Tensor) -> tuple[Tensor, Tensor]:
        return matrix.tanh() @ v, torch.stack([v.sum(), v[0]]).flip(0)

    for found, expected in zip(played(function, vector), function(vector), strict=True):
        assert torch.equal(found, expected)


def test_what_does_not_depend_on_the_inputs_is_computed_once():
    runs = []

    def function(v: Tensor) -> tuple[Tensor]:
        runs.append(1)
        constant = torch.ones(1000).cumsum(0)
        return (v * constant.sum(),)

    recording = Recording(function, [torch.ones(2)])
    assert recording(torch.tensor([1.0, 2.0]))[0].tolist() == [500500.0, 1001000.0]
    assert len(runs) == 1
    assert recording.num_bytes == 4


def test_writes_keep_their_order():
    def function(v: Tensor) -> tuple[Tensor, ...]:
        constant = torch.ones(3)
        before = v * constant
        constant.add_(1)
        after = v * constant
        doubled = v + v
        view = doubled[:2]
        doubled.mul_(3)
        view[0].zero_()
        return before, after, doubled

    vector = torch.tensor([1.0, 2.0, 3.0])
    assert [found.tolist() for found in played(function, vector)] == [[1, 2, 3], [2, 4, 6], [0, 12, 18]]


def test_what_is_constant_may_be_looked_at_and_drawn():
    def function(v: Tensor) -> tuple[Tensor]:
        draw = torch.rand(3)
        return (v * draw if draw.sum() > 0 else v,)

    torch.manual_seed(0)
    found = played(function, torch.ones(3))
    torch.manual_seed(0)
    assert torch.equal(found[0], torch.rand(3))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda v: (v if v.sum() > 0 else -v,), "looks at values"),
        (lambda v: (v[v > 0].sum(),), "looks at values"),
        (lambda v: (v * torch.rand_like(v),), "draws random numbers"),
        (lambda v: (torch.zeros(3).copy_(v),), "written into a tensor that does not"),
        (lambda v: (v * v,), "do not give the same"),
        (lambda v: (v + 1,), "do not give the same"),
    ],
)
def test_what_can_not_be_played_is_refused(function, reason):
    with pytest.raises(UntraceableError, match=reason):
        Recording(function, [torch.tensor([1.0, -2.0, 3.0])])


def test_a_recording_that_goes_away_frees_its_constants():
    def function(v: Tensor) -> tuple[Tensor]:
        constant = torch.ones(3).exp()
        kept.append(weakref.ref(constant))
        return (v * constant,)

    kept: list[weakref.ref] = []
    gc.collect()
    gc.disable()
    try:
        recording = Recording(function, [torch.ones(3)])
        assert kept[0]() is not None
        del recording
        assert kept[0]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("outputs", [1, 3])
def test_zeros_without_memory_which_forward_derivatives_make_are_recorded(outputs):
    torch.manual_seed(0)
    inputs, targets, weight = torch.randn(4, 5).double(), torch.randn(4, outputs).double(), torch.randn(outputs, 5).double()

    def loss(w: Tensor) -> Tensor:
        return torch.nn.functional.mse_loss((inputs @ w.T).tanh(), targets, reduction="sum")

    recording = Recording(lambda v: (torch.func.jvp(torch.func.grad(loss), (weight,), (v,))[1],), [torch.ones_like(weight)])
    vector = torch.randn_like(weight)
    (found,) = recording(vector)
    expected = torch.autograd.functional.hvp(loss, weight, vector)[1]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
