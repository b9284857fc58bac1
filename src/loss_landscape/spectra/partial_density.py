"""The probes of a spectral density that are finished."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from loss_landscape.checkpointing import Checkpointing, Finished, Resumable
from loss_landscape.operators.base import CurvatureOperator

MOMENT_TOLERANCE = 1e-3  # of the root mean square, by which moments of the spectrum may differ on another machine

Quadrature = tuple[Tensor, Tensor]
"""Nodes and weights [m] of one probe, float64."""


class PartialDensity:
    """The rows of finished probes by their number, of this call and of those before it that kept theirs in a file.

    `identity` is that of the draws and of what the operator says of itself; what it does not say is told apart by a product.
    """

    def __init__(self, checkpointing: Checkpointing, identity: Callable[[], Iterable[Tensor | str]]):
        self.rows: dict[int, Quadrature] = {}
        self._resumable = Resumable(checkpointing.own_file, identity, self._state, kind="density")
        self._is_checked = False
        for file in checkpointing.known_files:
            self._absorb(file)

    def check(self, operator: CurvatureOperator, number: int, signs: Tensor) -> None:
        """Forget all rows where that of this probe `signs` [P] is of another operator. Once is enough.

        Its mean is vᵀHv / P, and from two nodes on its mean square ‖Hv‖² / P.
        """
        if self._is_checked or number not in self.rows:
            return
        self._is_checked = True
        nodes, weights = self.rows[number]
        product = (operator @ signs).double().cpu()
        mean, size = float(signs.double().cpu() @ product) / operator.size, float(product.norm()) / operator.size**0.5
        kept_mean, kept_size = float(weights @ nodes), float(weights @ nodes.square()) ** 0.5
        same_mean = np.isclose(kept_mean, mean, rtol=0, atol=MOMENT_TOLERANCE * size, equal_nan=True)
        same_size = len(nodes) < 2 or np.isclose(kept_size, size, rtol=MOMENT_TOLERANCE, atol=0)
        if not (same_mean and same_size):
            self.rows.clear()

    def put(self, number: int, row: Quadrature) -> None:
        """A probe is finished; it is saved at once, for it took many products."""
        self.rows[number] = row
        self._resumable.save()

    def _absorb(self, file: Path) -> None:
        found = self._resumable.load(file)
        if found is not None:
            rows = {int(number): torch.from_numpy(row) for number, row in found.arrays.items()}
            self.rows = {number: (row[0], row[1]) for number, row in rows.items()} | self.rows

    def _state(self) -> Finished:
        return Finished({str(number): torch.stack(row).numpy() for number, row in self.rows.items()})
