"""A user's own tensors that a loss reads by another way than the net it is given: closures, hooks, patched methods, lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

ON_OWN_MEMORY = (torch.ops.aten.view_as_complex.default, torch.ops.aten.view.dtype)
"""Operations that a view into a longer vector may be at the wrong place for."""


def replaced(pairs: Sequence[tuple[Tensor, Tensor]]) -> AbstractContextManager[Any]:
    """A context in which torch's functions get the second tensor of each pair where they are given the first."""
    return _Replaced(pairs) if pairs else nullcontext()


class _Replaced(TorchFunctionMode):
    def __init__(self, pairs: Sequence[tuple[Tensor, Tensor]]):
        super().__init__()
        self.pairs = list(pairs)  # holds the first ones, whose ids must not become another's
        self.by_id = {id(given): instead for given, instead in pairs}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map_only(Tensor, lambda tensor: self.by_id.get(id(tensor), tensor), (args, kwargs or {}))
        return function(*args, **kwargs)


class MemoryWatch(TorchDispatchMode):
    """A context that notes which of some tensors, by label, operations read or write, by their memory.

    `strangers` are the parameters read that have no label and would want a gradient.
    """

    def __init__(self, watched: Mapping[Any, Tensor]):
        super().__init__()
        self._labels: dict[int, Any] = {}
        for label, tensor in watched.items():
            if (memory := _memory(tensor)) is not None:
                self._labels.setdefault(memory, label)
        self.read: dict[Any, None] = {}
        self.written: dict[Any, None] = {}
        self.reinterpreted: dict[Any, None] = {}
        self.strangers: dict[int, Tensor] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for tensor in tree_leaves((args, kwargs)):
            if not isinstance(tensor, Tensor):
                continue
            if (label := self._labels.get(_memory(tensor) or 0)) is None:
                if isinstance(tensor, nn.Parameter) and tensor.requires_grad:
                    self.strangers[id(tensor)] = tensor
                continue
            self.read[label] = None
            if function in ON_OWN_MEMORY:
                self.reinterpreted[label] = None
        if function._schema.is_mutable:
            self._note_writes(function, args, kwargs)
        return function(*args, **kwargs)

    def _note_writes(self, function: Any, args: Any, kwargs: Any) -> None:
        arguments = function._schema.arguments
        given = [*zip(arguments, args, strict=False), *((a, kwargs[a.name]) for a in arguments if a.name in kwargs)]
        for argument, value in given:
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in tree_leaves(value):
                    label = self._labels.get(_memory(tensor) or 0) if isinstance(tensor, Tensor) else None
                    if label is not None:
                        self.written[label] = None


def _memory(tensor: Tensor) -> int | None:
    """Where a tensor's memory begins, None for one that has none of its own."""
    return tensor.untyped_storage().data_ptr() or None if tensor.layout == torch.strided and not tensor.is_meta else None
