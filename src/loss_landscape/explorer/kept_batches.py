"""A user's loader as batches that are the same each time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from loss_landscape.explorer.loss_options import LossOptions
from loss_landscape.explorer.random_state import seeded_with_loader
from loss_landscape.objective.batches import DATASET_BATCH, SHUFFLING


@dataclass(frozen=True)
class KeptBatches:
    """Batches that can be read again, and in `notes` what was done to have them so."""

    batches: Iterable[Any]
    notes: tuple[str, ...] = ()


def kept_batches(data_loader: Any, options: LossOptions, seed: int) -> KeptBatches:
    """The batches of a loader, a data set or a list; with max_batches the first of them, read once, so it may shuffle."""
    source, hook = _as_batches(data_loader), options.pre_batch_hook
    if options.max_batches is None:
        ordered = _in_order(source)
        return KeptBatches(ordered if hook is None else _Hooked(ordered, hook, seed))
    with seeded_with_loader(seed, source):
        read = list(itertools.islice(_hooked(source, hook), options.max_batches))
    return KeptBatches(read, _notes(source, len(read), seed))


@dataclass(frozen=True)
class _Hooked:
    """Batches after a hook, which draws the same numbers on every pass."""

    source: Iterable[Any]
    hook: Callable[[Any], Any]
    seed: int

    def __iter__(self) -> Iterator[Any]:
        with seeded_with_loader(self.seed, self.source):
            batches, over = _hooked(self.source, self.hook), object()
        while True:
            with seeded_with_loader(self.seed, self.source):  # only while it reads: between batches the numbers are others'
                batch = next(batches, over)
            if batch is over:
                return
            yield batch


def _hooked(source: Iterable[Any], hook: Callable[[Any], Any] | None) -> Iterator[Any]:
    return iter(source) if hook is None else map(hook, source)


def _as_batches(data_loader: Any) -> Iterable[Any]:
    if data_loader is None or not (hasattr(data_loader, "__iter__") or isinstance(data_loader, Dataset)):
        raise TypeError(f"data_loader must be a DataLoader, a data set or a list of batches, got {type(data_loader).__name__}")
    if isinstance(data_loader, Dataset) and not isinstance(data_loader, IterableDataset):
        return DataLoader(data_loader, batch_size=DATASET_BATCH)
    if isinstance(data_loader, tuple | list) and len(data_loader) == 2 and all(isinstance(part, Tensor) for part in data_loader):
        return [tuple(data_loader)]  # one batch in the place of a list of such
    if isinstance(data_loader, dict):
        return [data_loader]
    source: Iterable[Any] = data_loader
    return source


def _shuffles(source: Any) -> bool:
    samplers = [getattr(source, "sampler", None), getattr(getattr(source, "batch_sampler", None), "sampler", None)]
    return isinstance(source, DataLoader) and any(isinstance(sampler, SHUFFLING) for sampler in samplers)


def _in_order(source: Iterable[Any]) -> Iterable[Any]:
    if _shuffles(source):
        raise ValueError(
            "data_loader shuffles, so each pass over all data would see other batches; give DataLoader(…, shuffle=False), or "
            "max_batches=, whose batches are read once and kept"
        )
    return source


def _notes(source: Iterable[Any], count: int, seed: int) -> tuple[str, ...]:
    total = len(source) if isinstance(source, list | DataLoader) and _has_length(source) else None
    said = [f"the first {count} of {total} batches are used"] if total is not None and count < total else []
    said += [f"the loader shuffles: these are the batches of seed {seed}, read once and kept"] if _shuffles(source) else []
    return tuple(said)


def _has_length(source: list[Any] | DataLoader[Any]) -> bool:
    return not (isinstance(source, DataLoader) and isinstance(source.dataset, IterableDataset))
