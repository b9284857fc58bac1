"""A loss on batches as its author would compute it: a copy of the net, other numbers in it, a loop over the batches.

Nothing of the library is used here: this is what its numbers are held against.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import PackedSequence

BatchLoss = Callable[[nn.Module, Any], Tensor]
Vector = Mapping[str, Tensor]
"""A tensor for each moving parameter, by name."""


@dataclass(frozen=True)
class PlainLoss:
    """Σ_b share_b · loss_of(net, batch_b) + penalty(net), in eval mode or else `training`; `loss_in(dtype)` is loss_of."""

    net: nn.Module
    batches: Sequence[Any]
    shares: Sequence[float]
    loss_in: Callable[[torch.dtype], BatchLoss]
    penalty: Callable[[nn.Module], Tensor] | None = None
    training: bool = False

    def moved(self, dtype: torch.dtype, displacement: Vector) -> nn.Module:
        """A copy of the net in `dtype`, with `displacement` added to its parameters."""
        net = copy.deepcopy(self.net).to(dtype)
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if name in displacement:
                    parameter.add_(displacement[name].to(dtype))
        net.train(self.training)  # after that: there are nets that merge weights here
        net.zero_grad()
        return net

    def of(self, net: nn.Module, dtype: torch.dtype) -> Tensor:
        """The loss of a net in `dtype`, to be differentiated."""
        loss_of = self.loss_in(dtype)
        parts = zip(self.shares, self.batches, strict=True)
        total = sum(share * loss_of(net, in_dtype(batch, dtype)) for share, batch in parts)
        return total if self.penalty is None else total + self.penalty(net)

    def value(self, dtype: torch.dtype, displacement: Vector) -> float:
        """The loss at a displacement."""
        with torch.no_grad(), by_formulas():
            return float(self.of(self.moved(dtype, displacement), dtype))

    def gradient(self, dtype: torch.dtype, displacement: Vector) -> Tensor:
        """The gradient [P] at a displacement, in the order of the displacement's names."""
        net = self.moved(dtype, displacement)
        with by_formulas():
            return flat(slopes(self.of(net, dtype), leaves(net, displacement)))

    def product(self, dtype: torch.dtype, displacement: Vector, vector: Vector) -> Tensor:
        """The Hessian times `vector` [P] at a displacement, by differentiating twice backwards."""
        net = self.moved(dtype, displacement)
        parts = leaves(net, displacement)
        with by_formulas():
            first = slopes(self.of(net, dtype), parts, create_graph=True)
            along = sum((slope * vector[name].to(dtype)).sum() for slope, name in zip(first, displacement, strict=True))
            return flat(slopes(along, parts))

    def difference(self, displacement: Vector, vector: Vector, step: float) -> Tensor:
        """The same in float64 by a central difference of gradients, `step` in units of the vector."""
        there, back = (self.gradient(torch.float64, shifted(displacement, vector, sign * step)) for sign in (1, -1))
        return (there - back) / (2 * step)


@contextlib.contextmanager
def by_formulas() -> Iterator[None]:
    """Attention and batch norm as they are written.

    torch's fused attention has no second derivative, and its fast path zeroes padded rows; its batch norm's gradient is wrong
    for a single example in some layouts.
    """
    fastpath, fused_norm = torch.backends.mha.get_fastpath_enabled(), torch.batch_norm

    def batch_norm(x: Tensor, weight, bias, mean, variance, training: bool, momentum: float, eps: float, cudnn: bool) -> Tensor:
        if training:
            return fused_norm(x, weight, bias, mean, variance, training, momentum, eps, cudnn)
        shape = (-1, *[1] * (x.dim() - 2))
        scaled = (x - mean.reshape(shape)) / (variance + eps).sqrt().reshape(shape)
        return scaled if weight is None else scaled * weight.reshape(shape) + bias.reshape(shape)

    try:
        torch.batch_norm = batch_norm
        torch.backends.mha.set_fastpath_enabled(False)
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.batch_norm = fused_norm
        torch.backends.mha.set_fastpath_enabled(fastpath)


def leaves(net: nn.Module, displacement: Vector) -> list[Tensor]:
    """The net's parameters of these names."""
    own = dict(net.named_parameters())
    return [own[name] for name in displacement]


def slopes(value: Tensor, parts: Sequence[Tensor], create_graph: bool = False) -> tuple[Tensor, ...]:
    """The gradient with respect to each part, zeros where there is none."""
    if not value.requires_grad:
        return tuple(torch.zeros_like(part) for part in parts)
    found = torch.autograd.grad(value, parts, create_graph=create_graph, allow_unused=True, materialize_grads=True)
    return tuple(slope.to_dense() if slope.is_sparse else slope for slope in found)


def flat(parts: Sequence[Tensor]) -> Tensor:
    """One vector [P] of all parts."""
    return torch.cat([part.detach().reshape(-1) for part in parts])


def shifted(displacement: Vector, vector: Vector, step: float) -> dict[str, Tensor]:
    """displacement + step · vector, in float64."""
    return {name: d.double() + step * vector[name].double() for name, d in displacement.items()}


def in_dtype(batch: Any, dtype: torch.dtype) -> Any:
    """A copy of a batch with its floating-point tensors in `dtype`."""
    if isinstance(batch, Tensor):
        return batch.to(dtype, copy=True) if batch.is_floating_point() else batch.clone()
    if isinstance(batch, Mapping):
        return {key: in_dtype(value, dtype) for key, value in batch.items()}
    if isinstance(batch, PackedSequence):
        return batch.to(dtype)
    if isinstance(batch, tuple | list):
        return type(batch)(in_dtype(part, dtype) for part in batch)
    return batch
