"""What a surface finds out about its net and loss before it is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from loss_landscape.nested import tensors_in

if TYPE_CHECKING:
    from loss_landscape.surface.surface import LossSurface


def common_dtype(parameters: Iterable[Tensor]) -> torch.dtype:
    """The widest dtype among the parameters, at least float32: a displacement of half precision would be lost in rounding."""
    found = torch.float32
    parameters = list(parameters)
    if not parameters:
        raise ValueError("the model has no parameters")
    for parameter in parameters:
        found = torch.promote_types(found, parameter.dtype) if parameter.is_floating_point() else found
    return found


def snapshot(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A copy of `tensor`, in `dtype` where that is given and the tensor's a floating-point one."""
    return tensor.detach().to(dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype, copy=True)


def prepare_criterion(surface: LossSurface, parameters: Mapping[str, Tensor]) -> None:
    """Let the surface's criterion see a batch; TypeError where batches are no (inputs, targets)."""
    batch = next(iter(surface.batches))
    if not (isinstance(batch, tuple | list) and len(batch) == 2):
        raise TypeError(
            f"each batch must be (inputs, targets) for a loss_fn, got {type(batch).__name__}; for other batches give "
            "batch_loss=f(model, batch) instead"
        )
    with torch.no_grad():
        # clones: a net may write to what it is given
        surface.criterion.prepare(surface.outputs({name: p.clone() for name, p in parameters.items()}, batch), batch[1])


def used_parameters(surface: LossSurface, trainable: Mapping[str, Tensor]) -> tuple[list[str], int]:
    """Which of the `trainable` the loss depends on, in order, and how many bytes the net's modules give out for a batch."""
    leaves = {name: parameter.clone().requires_grad_() for name, parameter in trainable.items()}
    used: set[str] = set()
    with torch.enable_grad(), _WatchedOutputs(surface.net) as seen:
        for batch in surface.batches:
            seen.bytes = 1  # of this batch alone
            loss = surface.batch_loss(leaves, batch)
            _check_scalar(loss)
            waiting = [name for name in trainable if name not in used]
            if loss.requires_grad:
                slopes = torch.autograd.grad(loss, [leaves[name] for name in waiting], allow_unused=True)
                used |= {name for name, slope in zip(waiting, slopes, strict=True) if slope is not None}
            if len(used) == len(trainable):
                break
    if not used:
        raise ValueError("the loss depends on no parameter with requires_grad=True, so there is no direction to move in")
    return [name for name in trainable if name in used], seen.bytes


def _check_scalar(loss: Any) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1 or loss.dim() > 0:
        got = f"a tensor {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"the loss of a batch must be a scalar tensor, got {got}; reduce it by mean or sum")


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
