"""One draw of a net's random numbers, held for every evaluation of a surface."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from loss_landscape.nested import tensors_in
from loss_landscape.randomness import seeded

NUM_HASHED = 64  # numbers of each of a batch's tensors, by which its draw is told from others'


@contextmanager
def held_draw(seed: int, batch: Any, device: torch.device) -> Iterator[None]:
    """Inside, torch's, NumPy's and Python's random numbers follow from `seed` and the batch; outside, they are as they were.

    Batches of the same numbers have the same draw. It is that of any dtype the net is evaluated in.
    """
    with seeded(zlib.crc32(b"".join(map(_first_numbers, tensors_in(batch))), seed), device), _DrawnInFloat64():
        yield


def _first_numbers(tensor: Tensor) -> bytes:
    if tensor.layout != torch.strided:
        return b"".join(map(_first_numbers, _stored(tensor.detach())))
    start = tensor.detach().reshape(-1)[:NUM_HASHED]
    return start.to("cpu", torch.float32 if start.is_floating_point() else start.dtype).contiguous().numpy().tobytes()


def _stored(tensor: Tensor) -> tuple[Tensor, ...]:
    """The dense tensors that a sparse one is made of."""
    if tensor.layout == torch.sparse_coo:
        return tensor._indices(), tensor._values()
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    return tensor.ccol_indices(), tensor.row_indices(), tensor.values()


class _DrawnInFloat64(TorchDispatchMode):
    """Inside, random numbers are drawn in float64 and rounded to their dtype: float32 and float64 come from other numbers."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        written = [argument.alias_info is not None and argument.alias_info.is_write for argument in function._schema.arguments]
        if torch.Tag.nondeterministic_seeded not in function.tags or any(written[1:]):
            return function(*args, **kwargs)
        if written[:1] == [True]:
            drawn = function(args[0].double(), *args[1:], **kwargs) if _is_real(args[0]) else function(*args, **kwargs)
            return args[0].copy_(drawn)
        own = _drawn_dtype(function, args, kwargs)
        if not own.is_floating_point:  # integers are the same in every dtype of the net
            return function(*args, **kwargs)
        given = {**kwargs, "dtype": torch.float64} if _takes(function, "dtype") else kwargs
        return _rounded(function(*(a.double() if _is_real(a) else a for a in args), **given), own)


def _takes(function: Any, name: str) -> bool:
    return any(argument.name == name for argument in function._schema.arguments)


def _drawn_dtype(function: Any, args: Any, kwargs: Any) -> torch.dtype:
    """The dtype that a drawing operation gives: what is asked for, its tensor's, its schema's default, or torch's.

    torch hands no arguments on that are as the schema has them: a `randperm` of integers comes without its dtype.
    """
    asked: torch.dtype | None = kwargs.get("dtype")
    given = [a.dtype for a in args if isinstance(a, Tensor)]
    if asked is not None or given:
        return asked or given[0]
    by_default = any(argument.name == "dtype" and argument.default_value is not None for argument in function._schema.arguments)
    return torch.int64 if by_default else torch.get_default_dtype()


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _rounded(result: Any, dtype: torch.dtype) -> Any:
    if isinstance(result, tuple | list):
        return type(result)(_rounded(part, dtype) for part in result)
    return result.to(dtype) if _is_real(result) else result


class DrawWatch:
    """A context that finds out who draws random numbers inside: `sources`, of torch, NumPy and Python. The latter two go back."""

    def __init__(self, device: torch.device):
        self._device = device
        self.sources: tuple[str, ...] = ()

    def __enter__(self) -> DrawWatch:
        self._states, self._before = self._now(), (np.random.get_state(), random.getstate())
        return self

    def __exit__(self, *_: Any) -> None:
        now = self._now()
        self.sources = tuple(source for source, state in self._states.items() if now[source] != state)
        np.random.set_state(self._before[0])
        random.setstate(self._before[1])

    def _now(self) -> dict[str, Any]:
        torchs = [torch.get_rng_state().numpy().tobytes()]
        if self._device.type == "cuda":
            torchs.append(torch.cuda.get_rng_state(self._device).numpy().tobytes())
        kind, keys, *rest = np.random.get_state()
        return {"torch": torchs, "NumPy": (kind, np.asarray(keys).tobytes(), rest), "Python": random.getstate()}
