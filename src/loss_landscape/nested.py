"""Tensors inside tuples, lists and mappings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


def map_tensors(function: Callable[[Tensor], Tensor], batch: Any) -> Any:
    """`batch` with `function` applied to each tensor in its tuples, lists and mappings."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, Mapping):
        return {key: map_tensors(function, value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(function, value) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map_tensors(function, value) for value in batch)
    return batch


def tensors_in(batch: Any) -> list[Tensor]:
    """Every tensor of `batch`, in order."""
    found: list[Tensor] = []

    def collect(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(collect, batch)
    return found


def rows_of(batch: Any, rows: slice) -> Any:
    """`batch` with these rows alone of each of its tensors."""

    def cut(tensor: Tensor) -> Tensor:
        return tensor[rows]

    return map_tensors(cut, batch)
