"""Whether a step is worth recording: a rule of counts, never a stopwatch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SAVED = 5e-6
"""Seconds that a compiled program saves of each operation of a step: what calling one costs, with the learner's own Python."""

COMPILING, COMPILING_AN_OPERATION = 6.0, 0.03
"""Seconds that compiling takes, with what the compiler needs to begin."""

MARGIN = 2.0
"""How many times the cost the saving has to be."""


def pays(num_steps: int, num_operations: int) -> bool:
    """Whether so many steps of so many operations save more than compiling costs."""
    cost = COMPILING + COMPILING_AN_OPERATION * num_operations
    return num_steps * num_operations * SAVED > MARGIN * cost


def count_operations(function: Callable[[], Any]) -> int:
    """How many operations on tensors a call makes."""
    with _Counter() as counter:
        function()
    return counter.count


def count_bytes(function: Callable[[], Any]) -> int:
    """How many bytes the operations of a call write, all together: what it needs at once is less."""
    with _Counter() as counter:
        function()
    return counter.num_bytes


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = self.num_bytes = 0

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        self.count += 1
        found = operation(*arguments, **(keywords or {}))
        self.num_bytes += sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(found) if isinstance(leaf, Tensor))
        return found
