"""The probes of a spectral density that are finished, on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from loss_landscape.files import write_whole
from loss_landscape.operators.base import CurvatureOperator

ROUNDING = 1e-3  # of the largest |node|, by which a mean of the spectrum may differ on another machine

Row = tuple[Tensor, Tensor]
"""Nodes and weights [m], float64."""


@dataclass(eq=False)
class KnownProbes:
    """The rows of finished probes by their number, kept in `file` (None: nowhere)."""

    file: Path | None
    identity: str  # of the draws; the operator is told apart by a product
    rows: dict[int, Row] = field(default_factory=dict)
    is_checked: bool = False

    def absorb(self, file: Path) -> None:
        """Take over what `file` holds of the same draws."""
        if not file.exists():
            return
        with np.load(file) as stored:
            if str(stored["identity"]) == self.identity:
                found = {int(number): torch.from_numpy(stored[f"row_{number}"]) for number in stored["numbers"]}
                self.rows = {number: (row[0], row[1]) for number, row in found.items()} | self.rows

    def check(self, operator: CurvatureOperator, number: int, signs: Tensor) -> None:
        """Forget all rows where that of this probe is of another operator: its mean is vᵀHv / P. Once is enough."""
        if self.is_checked or number not in self.rows:
            return
        self.is_checked = True
        nodes, weights = self.rows[number]
        mean = float(signs.double() @ (operator @ signs).double()) / operator.size
        if not np.isclose(float(nodes @ weights), mean, rtol=0, atol=ROUNDING * float(nodes.abs().max()), equal_nan=True):
            self.rows.clear()

    def put(self, number: int, row: Row) -> None:
        """A probe is finished."""
        self.rows[number] = row
        if self.file is None:
            return
        arrays = {f"row_{number}": torch.stack(row).numpy() for number, row in self.rows.items()}

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez(file, identity=np.array(self.identity), numbers=np.array(sorted(self.rows)), **arrays)

        write_whole(self.file, write)
