"""Tensors inside tuples, lists, mappings and packed sequences."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

PLAIN = (type(None), bool, int, float, complex, str, bytes, range, torch.dtype, torch.device, torch.Size)
"""Types whose repr says all that there is."""


def map_tensors(function: Callable[[Tensor], Tensor], batch: Any) -> Any:
    """`batch` with `function` applied to each tensor in its tuples, lists and mappings, which keep their types.

    Of a packed sequence, whose batch sizes are no data, to all but these.
    """
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, Mapping):
        return with_entries(batch, {key: map_tensors(function, value) for key, value in batch.items()})
    if isinstance(batch, PackedSequence):
        names = ("data", "sorted_indices", "unsorted_indices")
        return batch._replace(**{name: map_tensors(function, getattr(batch, name)) for name in names})
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


def num_rows(batch: Any) -> int:
    """The first dimension that all tensors of `batch` have in common; 0 where there is none."""
    lengths = {len(tensor) if tensor.dim() else 0 for tensor in tensors_in(batch)}
    return lengths.pop() if len(lengths) == 1 else 0


def as_tensor(given: Any) -> Any:
    """A NumPy array as a tensor of its own memory, for torch takes no negative strides; anything else as it is."""
    return torch.from_numpy(np.array(given)) if isinstance(given, np.ndarray) else given


def copied(batch: Any) -> Any:
    """Copies of the tensors of `batch`; of one that is there twice, one."""
    copies: dict[int, Tensor] = {}

    def copy_of(tensor: Tensor) -> Tensor:
        if id(tensor) not in copies:
            copies[id(tensor)] = tensor.clone()
        return copies[id(tensor)]

    return map_tensors(copy_of, batch)


def rows_of(batch: Any, rows: slice) -> Any:
    """`batch` with these rows alone of each of its tensors; ValueError where rows are no examples."""
    require_rows(batch)

    def cut(tensor: Tensor) -> Tensor:
        return tensor[rows]

    return map_tensors(cut, batch)


def few_of(batch: Any, count: int, *, first: int = 0) -> Any:
    """`count` examples of `batch` from the `first` on, or the last ones, or the whole where they can't be told apart."""
    if not num_rows(batch):
        return batch
    start = max(0, min(first, num_rows(batch) - count))
    try:
        return rows_of(batch, slice(start, start + count))
    except (ValueError, IndexError):
        return batch


def require_rows(batch: Any) -> None:
    """Raise ValueError for a packed sequence, whose rows are no examples."""
    if isinstance(batch, PackedSequence):
        raise ValueError("a packed sequence can't be cut into examples")
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, tuple | list):
        for part in batch:
            require_rows(part)


def form_of(batch: Any) -> Hashable:
    """What is equal where two batches differ in the values of their tensors alone.

    An object of any other kind is like itself only, however it prints.
    """
    if isinstance(batch, Tensor):
        return "tensor", batch.shape, batch.dtype
    if isinstance(batch, PackedSequence):
        parts = (batch.data, batch.sorted_indices, batch.unsorted_indices)
        return "packed", tuple(batch.batch_sizes.tolist()), *map(form_of, parts)
    if isinstance(batch, Mapping):
        return type(batch), *((form_of(key), form_of(value)) for key, value in batch.items())
    if isinstance(batch, tuple | list):
        return type(batch), *map(form_of, batch)
    return (type(batch), repr(batch)) if type(batch) in PLAIN else _Itself(batch)


def objects_in(batch: Any) -> list[Any]:
    """The parts of `batch` that `form_of` takes for like themselves only."""
    if isinstance(batch, Mapping):
        return [found for pair in batch.items() for part in pair for found in objects_in(part)]
    if isinstance(batch, tuple | list) and not isinstance(batch, PackedSequence):
        return [found for part in batch for found in objects_in(part)]
    return [] if isinstance(batch, Tensor | PackedSequence) or type(batch) in PLAIN else [batch]


@dataclass(frozen=True, eq=False)
class _Itself:
    """An object as a key, held so that no other can get its id."""

    held: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other.held is self.held

    def __hash__(self) -> int:
        return id(self.held)


def with_entries(mapping: Mapping[Any, Any], entries: dict[Any, Any]) -> Any:
    """A mapping of the same type with these entries, so that outputs by attribute stay so; a dict where none can be made."""
    if type(mapping) is dict or not isinstance(mapping, MutableMapping):
        return entries
    twin = copy.copy(mapping)
    for key, value in entries.items():
        twin[key] = value
    return twin
