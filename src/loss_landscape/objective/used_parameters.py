"""Which parameters the loss depends on, and which a surface leaves where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from loss_landscape.nested import tensors_in
from loss_landscape.objective.batch_loss import BatchLoss
from loss_landscape.objective.batches import Batches
from loss_landscape.objective.functional_net import Parameters, undisturbed

MATTERS = 1e-6  # relative change of a loss: less may be rounding


@dataclass(frozen=True)
class UsedParameters:
    """Names of trainable parameters, in their order.

    `names` are those that the loss depends on; of these, those in `without_slope` change its value though autograd gives them no
    derivative. `activation_bytes` is what the net's modules give out for a batch.
    """

    names: tuple[str, ...]
    without_slope: tuple[str, ...]
    activation_bytes: int


def used_parameters(
    batch_loss: BatchLoss, batches: Batches, trainable: Mapping[str, Tensor], penalty: Callable[[Parameters], Tensor] | None
) -> UsedParameters:
    """Which of the `trainable` the loss over all batches and the `penalty` depend on: by derivatives, then by moving them."""
    leaves = {name: parameter.clone().requires_grad_() for name, parameter in trainable.items()}
    used: set[str] = set()
    if penalty is not None:
        used |= _with_slope(_evaluated(penalty, leaves, "regularizer(model)"), leaves, trainable)
    with _WatchedOutputs(batch_loss.net.module) as seen:
        for batch in batches:
            seen.bytes = 1  # of this batch alone
            loss = _evaluated(partial(batch_loss, batch=batch), leaves, "the loss of a batch")
            used |= _with_slope(loss, leaves, [name for name in trainable if name not in used])
            if len(used) == len(trainable):
                break
    left = [name for name in trainable if name not in used]
    moving = _that_matter(batch_loss, batches, trainable, left) if left else []
    if not used and not moving:
        raise ValueError("the loss depends on no parameter with requires_grad=True, so there is no direction to move in")
    names = tuple(name for name in trainable if name in used or name in moving)
    return UsedParameters(names, tuple(moving), seen.bytes)


def _evaluated(function: Callable[[Parameters], Tensor], leaves: Mapping[str, Tensor], what: str) -> Tensor:
    with torch.enable_grad():
        loss = function(leaves)
    require_scalar(loss, what)
    return loss


def _with_slope(loss: Tensor, leaves: Mapping[str, Tensor], names: Iterable[str]) -> set[str]:
    """Which of the leaves called `names` a loss has a derivative in, be it 0."""
    names = list(names)
    if not loss.requires_grad or not names:
        return set()
    slopes = torch.autograd.grad(loss, [leaves[name] for name in names], allow_unused=True)
    return {name for name, slope in zip(names, slopes, strict=True) if slope is not None}


def _that_matter(batch_loss: BatchLoss, batches: Batches, parameters: Parameters, names: Sequence[str]) -> list[str]:
    """Which of the parameters called `names` change the loss of a batch when they move; by halves, as most often none does."""
    if not _changes_loss(batch_loss, batches, parameters, names):
        return []
    if len(names) == 1:
        return list(names)
    half = len(names) // 2
    return [name for part in (names[:half], names[half:]) for name in _that_matter(batch_loss, batches, parameters, part)]


@torch.no_grad()
def _changes_loss(batch_loss: BatchLoss, batches: Batches, parameters: Parameters, names: Sequence[str]) -> bool:
    moved = dict(parameters) | {name: elsewhere(parameters[name]) for name in names}
    for batch in batches:
        losses = []
        for point in (parameters, moved):
            with undisturbed(batch_loss.net.device):  # the same random numbers
                losses.append(float(batch_loss(point, batch)))
        here, there = losses
        if here == here and not abs(there - here) <= MATTERS * abs(here):
            return True
    return False


def elsewhere(parameter: Tensor, seed: int = 0) -> Tensor:
    """A parameter moved by a random tenth of its size, or of 1 where it is 0: far enough to see, and near."""
    if not parameter.is_floating_point():
        return parameter
    noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    size = float(parameter.double().square().mean().sqrt()) if parameter.numel() else 0.0
    return parameter + (0.1 * (size or 1.0) * noise).to(parameter)


def require_scalar(loss: Any, what: str) -> None:
    """ValueError where `loss`, which is `what`, is no scalar tensor."""
    if not isinstance(loss, Tensor) or loss.dim() > 0:
        if isinstance(loss, Tensor):
            raise ValueError(f"{what} must be a scalar tensor, got one {list(loss.shape)}; reduce it by mean or sum")
        advice = "leave out .item()" if isinstance(loss, float) else "return the scalar alone"
        raise ValueError(f"{what} must be a scalar tensor, got {type(loss).__name__}; {advice}")


class _WatchedOutputs:
    """A context that counts the bytes which the modules of `net` give out."""

    def __init__(self, net: nn.Module):
        self.net, self.bytes = net, 1

    def __enter__(self) -> _WatchedOutputs:
        self.hooks = [module.register_forward_hook(self._watch) for module in self.net.modules()]
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self.hooks:
            hook.remove()

    def _watch(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(outputs))
