"""The fixed batches a surface is made of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from loss_landscape.nested import map_tensors, num_rows, rows_of, tensors_in

DATASET_BATCH = 256  # examples at a time of a data set given in place of a loader
SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


class Batches:
    """Batches that are the same on every pass, on one device, kept in memory where they fit.

    `dtype`, where given, is what their floating-point tensors are turned into. Tensors that need no change are the user's own;
    a pass raises ValueError where one was written into meanwhile. Of a source that writes each batch over the last one copies are
    kept.
    """

    def __init__(self, source: Iterable[Any], device: torch.device, dtype: torch.dtype | None, memory_limit: int = 2 << 30):
        self.device, self.dtype = device, dtype
        self._source = _fixed(source)
        self._copies = False
        self._kept: list[tuple[Any, list[int]]] | None = None
        self._kept = self._read(memory_limit)

    def __iter__(self) -> Iterator[Any]:
        return self._streamed() if self._kept is None else self._unchanged(self._kept)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickled tensors count what is written into them from 0."""
        self.__dict__.update(state)
        if self._kept is not None:
            self._kept = [(batch, _versions(batch)) for batch, _ in self._kept]

    @property
    def in_memory(self) -> bool:
        """Whether every pass gives the very same objects."""
        return self._kept is not None

    def in_dtype(self, dtype: torch.dtype) -> Batches:
        """The same batches with their floating-point tensors in `dtype`."""
        return Batches(self, self.device, dtype)

    def on(self, device: torch.device) -> Batches:
        """The same batches on another device."""
        return Batches(self, device, self.dtype)

    def in_halves(self) -> Batches:
        """The same data in batches of half the size; ValueError where all have one example, or one has none to be counted."""
        halves = Batches(_Halves(self), self.device, self.dtype)
        if sum(1 for _ in halves) == sum(1 for _ in self):
            raise ValueError("batches of one example can't be cut in two")
        return halves

    def _unchanged(self, kept: list[tuple[Any, list[int]]]) -> Iterator[Any]:
        for number, (batch, versions) in enumerate(kept):
            if _versions(batch) != versions:
                raise ValueError(
                    f"batch {number} was written into since the surface was made, by the net, the loss or elsewhere; give the "
                    "surface a copy of the batches"
                )
            yield batch

    def _streamed(self) -> Iterator[Any]:
        with _generator_unmoved(self._source):
            for number, batch in enumerate(self._source):
                if batch is None:
                    raise ValueError(f"batch {number} is None; let the loader's collate function leave out what can't be read")
                if not _is_empty(batch):
                    yield self._placed(batch)

    def _read(self, limit: int) -> list[tuple[Any, list[int]]] | None:
        kept, size = list[tuple[Any, list[int]]](), 0
        for batch in self._streamed():
            kept.append((batch, _versions(batch)))
            size += sum(t.numel() * t.element_size() for t in tensors_in(batch))
            if size > limit:
                self._check_rereadable(limit)
                return None
        if not kept:
            raise ValueError(
                "expected at least one batch, got none; an iterator that was already used up has none left, nor "
                "has a loader with drop_last=True over fewer examples than a batch"
            )
        if any(_versions(batch) != versions for batch, versions in kept):
            if iter(self._source) is self._source:
                raise ValueError("batches is a generator that writes each batch over the last one; give a list of copies")
            self._copies = True
            return self._read(limit)
        return kept

    def _check_rereadable(self, limit: int) -> None:
        if iter(self._source) is self._source:
            raise ValueError(
                f"batches is a generator of more than {limit >> 20} MiB and can be read only once; give a list or a DataLoader"
            )

    def _placed(self, batch: Any) -> Any:
        def place(tensor: Tensor) -> Tensor:
            wanted = self.dtype if self.dtype is not None and tensor.is_floating_point() else tensor.dtype
            placed = tensor.detach().to(self.device, wanted)
            return placed.clone() if placed.is_inference() or self._copies and placed.data_ptr() == tensor.data_ptr() else placed

        return map_tensors(place, _with_tensors(batch))


@dataclass(frozen=True)
class _Halves:
    """Every batch's first and second half."""

    whole: Iterable[Any]

    def __iter__(self) -> Iterator[Any]:
        for batch in self.whole:
            count = num_rows(batch)
            if not count:
                raise ValueError("a batch whose examples can't be told apart can't be cut in two")
            for part in (slice(0, count // 2), slice(count // 2, count)) if count > 1 else (slice(0, 1),):
                yield rows_of(batch, part)


def _with_tensors(batch: Any) -> Any:
    """`batch` with tensors in place of its NumPy arrays."""
    if isinstance(batch, np.ndarray) and batch.dtype != object:
        return torch.from_numpy(batch.copy())
    if isinstance(batch, Mapping):
        return {key: _with_tensors(value) for key, value in batch.items()}
    if isinstance(batch, tuple | list) and not hasattr(batch, "_fields"):
        return type(batch)(_with_tensors(value) for value in batch)
    return batch


def _versions(batch: Any) -> list[int]:
    """How often each tensor was written into."""
    return [tensor._version for tensor in tensors_in(batch)]


def _is_empty(batch: Any) -> bool:
    lengths = {len(t) for t in tensors_in(batch) if t.dim()}
    return lengths == {0}


def _fixed(source: Iterable[Any]) -> Iterable[Any]:
    if isinstance(source, Dataset) and not isinstance(source, IterableDataset):
        return DataLoader(source, batch_size=DATASET_BATCH)
    if source is None or not hasattr(source, "__iter__"):
        raise TypeError(f"batches must be a list of (inputs, targets) or a loader without shuffling, got {type(source).__name__}")
    samplers = [getattr(source, "sampler", None), getattr(getattr(source, "batch_sampler", None), "sampler", None)]
    if isinstance(source, DataLoader) and any(isinstance(sampler, SHUFFLING) for sampler in samplers):
        raise ValueError(
            "batches is a DataLoader that shuffles, so each pass would see other batches; give DataLoader(..., shuffle=False)"
        )
    return source


@contextlib.contextmanager
def _generator_unmoved(source: Iterable[Any]) -> Iterator[None]:
    """A DataLoader draws a seed from its generator on every pass; put the generator back where it was."""
    generator = source.generator if isinstance(source, DataLoader) else None
    state = None if generator is None else generator.get_state()
    try:
        yield
    finally:
        if generator is not None:
            generator.set_state(state)
