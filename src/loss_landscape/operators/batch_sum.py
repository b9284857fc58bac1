"""A curvature matrix as the weighted sum of its terms' matrices, within a memory budget, and mended where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from loss_landscape.objective.functional_net import undisturbed
from loss_landscape.surface.surface import LossSurface

TENSORS_KEPT_AN_ACTIVATION = 4  # by the forward pass, the backward pass, and functions that are no module

DeviceFallback = Literal["error", "cpu"]


@dataclass(frozen=True)
class BatchMatrix:
    """A term's matrix, ready to be multiplied with a vector [P]; `num_bytes` is what it holds meanwhile."""

    product: Callable[[Tensor], Tensor]
    num_bytes: int


@dataclass(frozen=True)
class WeightedTerm:
    """A term's weight and two ways to prepare its matrix: for many products, and for those of a single pass."""

    weight: float
    lasting: Callable[[], BatchMatrix]
    passing: Callable[[], BatchMatrix]


Terms = Callable[[LossSurface], Iterator[WeightedTerm]]


class BatchSum:
    """Products with Σ weight · matrix over the `terms` of a surface.

    As many terms as fit into `memory_budget_mb` are kept ready between products, by their place among the terms, which come in
    the same order each time; the others are prepared anew for each. Where
    memory runs out nothing is kept any more; then every batch is cut into halves, down to one example, which gives the same sum;
    then `on_oom` decides: an error, or the CPU. `note` says what was done.
    """

    def __init__(self, surface: LossSurface, terms: Terms, memory_budget_mb: int, on_oom: DeviceFallback):
        if on_oom not in ("error", "cpu"):
            raise ValueError(f"on_oom must be 'error' or 'cpu', got {on_oom!r}")
        self._surface = self._whole = surface
        self._terms, self._on_oom = terms, on_oom
        self._budget = memory_budget_mb * 2**20
        self._parts = 1
        self._moved = False
        self._kept: list[BatchMatrix] = []
        self._full = False
        self.note = ""

    def __call__(self, vectors: Tensor) -> Tensor:
        """The product with the columns of `vectors` [P, K], [P, K]."""
        while True:
            try:
                return self._product(vectors.to(self._surface.origin)).to(vectors)
            except torch.OutOfMemoryError as error:
                failure = error.with_traceback(None)  # the traceback holds what was allocated
            self._mend(failure)

    def release(self) -> None:
        """Drop what is kept between products; it is prepared again when it is needed."""
        self._kept, self._full = [], False

    def _product(self, vectors: Tensor) -> Tensor:
        columns = vectors.T.contiguous()
        with undisturbed(self._surface.device):
            total = torch.zeros_like(columns)
            for index, term in enumerate(self._terms(self._surface)):
                prepared = self._prepared(index, term)
                for column, out in zip(columns, total, strict=True):
                    out.add_(prepared.product(column), alpha=term.weight)
        return total.T

    def _prepared(self, index: int, term: WeightedTerm) -> BatchMatrix:
        if index < len(self._kept):
            return self._kept[index]
        expected = TENSORS_KEPT_AN_ACTIVATION * self._surface.objective.activation_bytes
        if not self._full and self._held + expected <= self._budget:
            prepared = term.lasting()
            if self._held + prepared.num_bytes <= self._budget:
                self._kept.append(prepared)
                return prepared
        self._full = True
        return term.passing()

    @property
    def _held(self) -> int:
        return sum(prepared.num_bytes for prepared in self._kept)

    def _mend(self, failure: torch.OutOfMemoryError) -> None:
        keeps = bool(self._kept)
        self.release()
        if keeps:
            self._budget = 0
            self.note = "out of memory: nothing is kept between products"
            return
        try:
            self._surface = self._surface.in_halves()
            self._parts *= 2
            self.note = f"out of memory: every batch is cut into {self._parts} parts"
        except (ValueError, torch.OutOfMemoryError) as uncut:
            self._give_up_or_move(failure, uncut)

    def _give_up_or_move(self, failure: torch.OutOfMemoryError, uncut: Exception) -> None:
        if self._on_oom == "error" or self._moved:
            raise torch.OutOfMemoryError(
                f"a product with the curvature does not fit into memory even with every batch cut into {self._parts} parts, and "
                f"no further: {uncut}; give smaller batches, fewer parameters (surface.restricted) or on_oom='cpu'"
            ) from failure
        self._surface, self._moved, self._parts = self._whole.on("cpu"), True, 1
        self.note = "out of memory: the products are computed on the CPU"
