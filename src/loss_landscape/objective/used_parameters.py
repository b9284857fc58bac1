"""Which parameters the loss depends on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from loss_landscape.nested import tensors_in
from loss_landscape.objective.batch_loss import BatchLoss
from loss_landscape.objective.batches import Batches


def used_parameters(batch_loss: BatchLoss, batches: Batches, trainable: Mapping[str, Tensor]) -> tuple[tuple[str, ...], int]:
    """Which of the `trainable` the loss depends on, in order, and how many bytes the net's modules give out for a batch."""
    leaves = {name: parameter.clone().requires_grad_() for name, parameter in trainable.items()}
    used: set[str] = set()
    with torch.enable_grad(), _WatchedOutputs(batch_loss.net.module) as seen:
        for batch in batches:
            seen.bytes = 1  # of this batch alone
            loss = batch_loss(leaves, batch)
            _check_scalar(loss)
            waiting = [name for name in trainable if name not in used]
            if loss.requires_grad:
                slopes = torch.autograd.grad(loss, [leaves[name] for name in waiting], allow_unused=True)
                used |= {name for name, slope in zip(waiting, slopes, strict=True) if slope is not None}
            if len(used) == len(trainable):
                break
    if not used:
        raise ValueError("the loss depends on no parameter with requires_grad=True, so there is no direction to move in")
    return tuple(name for name in trainable if name in used), seen.bytes


def _check_scalar(loss: Any) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1 or loss.dim() > 0:
        if isinstance(loss, Tensor):
            raise ValueError(f"the loss of a batch must be a scalar tensor, got one {list(loss.shape)}; reduce it by mean or sum")
        advice = "leave out .item()" if isinstance(loss, float) else "return the loss alone"
        raise ValueError(f"the loss of a batch must be a scalar tensor, got {type(loss).__name__}; {advice}")


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
