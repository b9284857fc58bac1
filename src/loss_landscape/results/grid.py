"""Losses on a regular grid."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loss_landscape.files import write_whole

AXES = ("alpha", "beta", "gamma")


@dataclass(frozen=True, eq=False)
class Grid:
    """Losses on a regular grid: `losses[i, j]` at `coordinates[0][i]` along axis one and `coordinates[1][j]` along axis two."""

    losses: np.ndarray  # float64, one dimension for each axis
    coordinates: tuple[np.ndarray, ...]
    meta: dict[str, Any]
    evaluated: np.ndarray = field(default_factory=lambda: np.array(True))  # bool, as `losses`; False: predicted from other cells

    def __post_init__(self) -> None:
        object.__setattr__(self, "evaluated", np.broadcast_to(self.evaluated, self.losses.shape))

    def save(self, folder: str | Path) -> None:
        """Write grid.npy, grid.csv and meta.json, and evaluated.npy where a cell was predicted; each appears whole or not at all.

        meta.json is the last: a folder that has it has the others.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "grid.npy", lambda path: np.save(path, self.losses))
        if self.evaluated.all():
            (folder / "evaluated.npy").unlink(missing_ok=True)
        else:
            write_whole(folder / "evaluated.npy", lambda path: np.save(path, self.evaluated))
        write_whole(folder / "grid.csv", self._write_csv)
        write_whole(folder / "meta.json", lambda path: path.write_text(json.dumps(self.meta, indent=2) + "\n"))

    @classmethod
    def load(cls, folder: str | Path) -> Grid:
        """A grid that `save` wrote."""
        folder = Path(folder)
        meta = json.loads((folder / "meta.json").read_text())
        coordinates = tuple(np.array(axis, dtype=np.float64) for axis in meta["coordinates"])
        predicted = folder / "evaluated.npy"
        evaluated = np.load(predicted) if predicted.exists() else np.array(True)
        return cls(np.load(folder / "grid.npy"), coordinates, meta, evaluated)

    def _write_csv(self, path: Path) -> None:
        count, marked = self.losses.ndim, not self.evaluated.all()
        with path.open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow([*"ijk"[:count], *AXES[:count], "loss", *["evaluated"] * marked])
            for index in np.ndindex(self.losses.shape):
                place = [repr(float(axis[i])) for axis, i in zip(self.coordinates, index, strict=True)]
                mark = [int(self.evaluated[index])] * marked
                rows.writerow([*index, *place, repr(float(self.losses[index])), *mark])
