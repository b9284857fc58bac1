"""Reading a net without leaving a trace on it."""

from __future__ import annotations

import contextlib
import copy
import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

_entered = threading.local()  # whether this thread is inside `undisturbed`


def private_clone(model: nn.Module) -> nn.Module:
    """A copy with its own modules, modes and hooks that shares the parameters and buffers of `model`.

    Run it by `called` with every parameter and buffer given, and nothing of the user's is read or written. Its
    recurrent layers keep off cuDNN, whose kernels have no gradient in eval mode, and never a second one.
    """
    shared = {id(t): t for t in chain(model.parameters(), model.buffers())}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and value.grad_fn is not None:  # weight_norm's product, which can't be deep-copied
                shared[id(value)] = value.detach()
    clone = copy.deepcopy(model, shared)
    for module in clone.modules():
        if isinstance(module, nn.RNNBase):
            module.forward = functools.partial(_without_cudnn, module.forward)
    return clone


def _without_cudnn(forward: Callable[..., Any], *positional: Any, **keywords: Any) -> Any:
    with torch.backends.cudnn.flags(enabled=False):
        return forward(*positional, **keywords)


def called(
    net: nn.Module, state: Mapping[str, Tensor], positional: tuple[Any, ...], keywords: Mapping[str, Any] | None = None
) -> Any:
    """What `net` gives with the parameters and buffers of `state`, each under its first name; one that is shared is so again.

    torch's own tying of weights puts a module that is registered twice back with plain tensors in place of its parameters.
    """
    first: dict[int, str] = {}
    completed = dict(state)
    for prefix, module in net.named_modules():  # each once, whatever it is registered as
        for local, tensor in chain(module._parameters.items(), module._buffers.items()):
            name = f"{prefix}.{local}" if prefix else local
            if tensor is not None and (known := first.setdefault(id(tensor), name)) in state:
                completed[name] = state[known]
    return torch.func.functional_call(net, completed, positional, dict(keywords or {}), tie_weights=False)


def use_batch_statistics(net: nn.Module) -> None:
    """Let the batch norms of `net` normalise by each batch's own statistics, in eval mode, and record nothing."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean = module.running_var = module.num_batches_tracked = None


def recomputed_statistics(
    net: nn.Module, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], inputs: Iterable[Any]
) -> dict[str, Tensor]:
    """The buffers of `net` with batch norm's running statistics taken anew, as means over the batches (Izmailov et al. 2018)."""
    training = copy.deepcopy(net, {id(t): t for t in chain(net.parameters(), net.buffers())}).eval()
    state = {name: buffer.clone() for name, buffer in buffers.items()}
    for name, module in training.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            module.train()
            module.momentum = None  # the plain mean
            state[f"{name}.num_batches_tracked"].zero_()
    with torch.no_grad():
        for one in inputs:
            keywords = dict(one) if isinstance(one, Mapping) else {}
            positional = () if keywords else tuple(one) if isinstance(one, tuple | list) else (one,)
            called(training, {**parameters, **state}, positional, keywords)
    return state


@contextlib.contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Exact arithmetic inside, nobody's settings or random numbers changed outside.

    No autocast and no TF32, attention by its plain formula (the fused ones have no second derivative), outside inference mode.
    Inside another one, only random numbers are left to do: each draws the same.
    """
    if getattr(_entered, "already", False):
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
        return
    fastpath = torch.backends.mha.get_fastpath_enabled()
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    cuda = [device] if device.type == "cuda" else []
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.random.fork_rng(devices=cuda))
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        try:
            _entered.already = True
            torch.backends.mha.set_fastpath_enabled(False)
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
            yield
        finally:
            _entered.already = False
            torch.backends.mha.set_fastpath_enabled(fastpath)
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32
