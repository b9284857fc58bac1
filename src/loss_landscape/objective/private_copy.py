"""A copy of a user's net to evaluate: in eval mode, and the same before each call."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from loss_landscape.randomness import GENERATORS, restore_state, state_of

KEPT_BY_TORCH = frozenset(vars(nn.RNN(1, 1)))
"""The attributes that torch gives modules, among them parameters, hooks, and lists of weights that follow these."""
CONTAINERS = (list, dict, set)
SPARSE = (nn.Embedding, nn.EmbeddingBag)


def private_clone(model: nn.Module, *, own_memory: bool = False) -> nn.Module:
    """A copy with its own modules, modes and hooks that shares the parameters and buffers of `model`, or has its `own_memory`.

    Run it with every parameter and buffer given, and nothing of the user's is read or written. Its recurrent layers keep off
    cuDNN, whose kernels have no gradient in eval mode, and never a second one; its embeddings give
    dense gradients, those of the loss and not such as are divided by how often a row is read.
    """
    shared = {} if own_memory else {id(t): t for t in chain(model.parameters(), model.buffers())}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and value.grad_fn is not None:  # weight_norm's product, which can't be deep-copied
                shared[id(value)] = value.detach()
    clone = copy.deepcopy(model, shared)
    for module in clone.modules():
        if isinstance(module, nn.RNNBase):
            module.forward = functools.partial(_without_cudnn, module.forward)
        if isinstance(module, SPARSE):
            module.sparse = module.scale_grad_by_freq = False
    return clone


def evaluating_clone(model: nn.Module) -> nn.Module:
    """A private clone in eval mode; of a net with a `train` or `eval` of its own, the modes that this sets, and nothing else.

    Such a method may merge weights, or throw away what is kept for evaluation: it is called on copies with memory of their own.
    The clone is the one that was put into training mode, where nothing is merged or kept, with the modes of the one in eval mode.
    """
    if not sets_modes_itself(model):
        return with_modes(private_clone(model), {})
    clone, evaluating = private_clone(model, own_memory=True), private_clone(model, own_memory=True)
    clone.train()
    evaluating.eval()
    return with_modes(clone, {name: module.training for name, module in evaluating.named_modules()})


def sets_modes_itself(model: nn.Module) -> bool:
    """Whether one of the modules has a `train` or `eval` that is not torch's."""
    return any(
        getattr(type(module), method) is not getattr(nn.Module, method) or method in vars(module)
        for module in model.modules()
        for method in ("train", "eval")
    )


def with_modes(net: nn.Module, modes: Mapping[str, bool]) -> nn.Module:
    """The net with `modes` by module's name, eval mode where none is given, set without a call of its methods."""
    for name, module in net.named_modules():
        module.training = modes.get(name, False)
    return net


class GivenAttributes:
    """What the modules of a net hold beside parameters, buffers and submodules, to be given back to them after each call."""

    def __init__(self, net: nn.Module):
        self._modules = [(name, module, dict(vars(module))) for name, module in net.named_modules()]
        self._contents = [
            (f"{name}.{key}".lstrip("."), value, copy.copy(value))
            for name, _, given in self._modules
            for key, value in given.items()
            if key not in KEPT_BY_TORCH and type(value) in CONTAINERS
        ]
        self._tensors = [
            (f"{name}.{key}".lstrip("."), value, value._version)
            for name, _, given in self._modules
            for key, value in given.items()
            if isinstance(value, Tensor) and not value.is_inference()
        ]

        self._generators = [
            (value, state_of(value)) for _, _, given in self._modules for value in given.values() if isinstance(value, GENERATORS)
        ]
        self._restores = True

    @contextmanager
    def kept(self) -> Iterator[None]:
        """A context after which all is as it was."""
        try:
            yield
        finally:
            if self._restores:
                self.restore()

    @contextmanager
    def left_as_changed(self) -> Iterator[None]:
        """A context in which calls leave what they change, to be looked at; all is as it was at its end."""
        self._restores = False
        try:
            yield
        finally:
            self._restores = True
            self.restore()

    def restore(self) -> None:
        """Put everything back."""
        for _, module, given in self._modules:
            attributes = vars(module)  # not kept: an unpickled module has another dict than the one it was filled from
            attributes.clear()
            attributes.update(given)
        for _, container, given in self._contents:
            _refill(container, given)
        for generator, state in self._generators:
            restore_state(generator, state)

    @property
    def has_drawn(self) -> bool:
        """Whether one of the modules' own generators has given random numbers."""
        return any(pickle.dumps(state_of(generator)) != pickle.dumps(state) for generator, state in self._generators)

    def changed(self) -> list[str]:
        """The names of the attributes that are not what they were."""
        found = [
            f"{name}.{key}".lstrip(".")
            for name, module, given in self._modules
            for key in {**given, **vars(module)}
            if key not in KEPT_BY_TORCH and vars(module).get(key) is not given.get(key)
        ]
        found += [name for name, container, given in self._contents if not _same(container, given)]
        return found + [name for name, tensor, version in self._tensors if tensor._version != version]


def _refill(container: Any, given: Any) -> None:
    container.clear()
    (container.extend if isinstance(container, list) else container.update)(given)


def _same(container: Any, given: Any) -> bool:
    if len(container) != len(given):
        return False
    if isinstance(container, set):
        return container == given
    if isinstance(container, dict):
        return all(container.get(key) is value for key, value in given.items())
    return all(now is before for now, before in zip(container, given, strict=True))


def _without_cudnn(forward: Callable[..., Any], *positional: Any, **keywords: Any) -> Any:
    with torch.backends.cudnn.flags(enabled=False):
        return forward(*positional, **keywords)
