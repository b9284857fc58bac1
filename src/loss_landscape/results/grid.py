"""Losses on a regular grid."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loss_landscape.files import DAMAGED, UnreadableFileError, write_whole
from loss_landscape.results.info import AXES, GridInfo
from loss_landscape.results.result import table

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False, repr=False)
class Grid:
    """Losses on a line, a plane or in a volume: `losses[i, j]` at `coordinates[0][i]` and `coordinates[1][j]`.

    `losses` are float64, one dimension for each axis, `coordinates` the places along each, ascending. `info` is what is known of
    them, nothing for a grid made by hand; its JSON form is taken as well. `evaluated`, bool, is False where a loss was predicted
    from other cells. Raises ValueError where the shapes do not fit each other.

    >>> import numpy as np
    >>> axis = np.linspace(-1.0, 1.0, 5)
    >>> grid = Grid(np.add.outer(axis**2, axis**2), (axis, axis))
    >>> grid
    Grid(5×5, loss 0…2, centre 0, custom)
    >>> grid.span
    ((-1.0, 1.0), (-1.0, 1.0))
    """

    losses: np.ndarray
    coordinates: tuple[np.ndarray, ...]
    info: GridInfo = GridInfo()
    evaluated: np.ndarray = field(default_factory=lambda: np.array(True))

    def __post_init__(self) -> None:
        losses = np.asarray(self.losses, dtype=np.float64)
        coordinates = tuple(np.asarray(axis, dtype=np.float64) for axis in self.coordinates)
        if losses.shape != tuple(axis.size for axis in coordinates):
            sizes = [list(axis.shape) for axis in coordinates]
            raise ValueError(f"expected losses with a dimension for each axis, got {list(losses.shape)} and axes of {sizes}")
        info = GridInfo.from_json(self.info) if isinstance(self.info, Mapping) else self.info
        evaluated = np.broadcast_to(self.evaluated, losses.shape)
        for name, value in (("losses", losses), ("coordinates", coordinates), ("info", info), ("evaluated", evaluated)):
            object.__setattr__(self, name, value)

    @property
    def span(self) -> tuple[tuple[float, float], ...]:
        """The lowest and the highest coordinate along each axis."""
        return tuple((float(axis[0]), float(axis[-1])) for axis in self.coordinates)

    @property
    def relative_span(self) -> tuple[tuple[float, float], ...] | None:
        """The span in lengths of the parameters, where the norms of the axes and of the parameters are known."""
        norms, origin = self.info.directions.norms, self.info.directions.origin_norm
        if not origin or len(norms) != len(self.coordinates):
            return None
        return tuple((low * norm / origin, high * norm / origin) for (low, high), norm in zip(self.span, norms, strict=True))

    @property
    def resolution(self) -> tuple[int, ...]:
        """Cells along each axis."""
        return self.losses.shape

    @property
    def num_evaluated(self) -> int:
        """How many losses were computed; the others were predicted."""
        return int(self.evaluated.sum())

    @property
    def num_nonfinite(self) -> int:
        """How many losses are infinite or NaN."""
        return int((~np.isfinite(self.losses)).sum())

    @property
    def centre_loss(self) -> float | None:
        """The loss at the origin: the surface's own where known, else the cell's there, None where there is none."""
        if self.info.baseline_loss is not None:
            return self.info.baseline_loss
        cell = [np.flatnonzero(axis == 0) for axis in self.coordinates]
        return float(self.losses[tuple(found[0] for found in cell)]) if all(len(found) for found in cell) else None

    @property
    def float_noise(self) -> float | None:
        """How far rounding moves a loss: as measured, 0 in float64, against which others are measured; None: not known."""
        how, floor = self.info.evaluation, self.info.noise.floor
        is_exact = how is not None and how.dtype == "float64" and how.precision is None
        return 0.0 if floor is None and is_exact else floor

    @property
    def meta(self) -> dict[str, Any]:
        """`info` in its JSON form, with what follows from the arrays: what `save` writes into meta.json."""
        sides, relative = set(self.resolution), self.relative_span
        extent = {
            "resolution": self.resolution[0] if len(sides) == 1 else list(self.resolution),
            "span": [list(pair) for pair in self.span],
            "relative_span": [list(pair) for pair in relative] if relative else [None] * self.losses.ndim,
            "coordinates": [axis.tolist() for axis in self.coordinates],
            "num_cells": self.losses.size,
            "num_evaluated": self.num_evaluated,
            "num_nonfinite": self.num_nonfinite,
        }
        return {**extent, **self.info.to_json()}

    def save(self, folder: str | Path) -> None:
        """Write grid.npy, grid.csv and meta.json into `folder`, and evaluated.npy where a cell was predicted.

        Each appears whole or not at all. meta.json is the last: a folder that has it has the others.
        """
        folder = Path(folder)
        if folder.is_file():
            raise FileExistsError(f"{folder} is a file; a grid is saved into a folder, which is made")
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
        """A grid that `save` wrote into `folder`; FileNotFoundError where there is none, ValueError where it is damaged."""
        folder = Path(folder)
        predicted = folder / "evaluated.npy"
        try:
            meta = json.loads((folder / "meta.json").read_text())
            coordinates = tuple(np.array(axis, dtype=np.float64) for axis in meta["coordinates"])
            evaluated = np.load(predicted) if predicted.exists() else np.array(True)
            return cls(np.load(folder / "grid.npy"), coordinates, GridInfo.from_json(meta), evaluated)
        except DAMAGED as error:
            raise UnreadableFileError(f"{folder} holds no whole grid: a file in it is cut off, or another's") from error

    def to_arrays(self) -> dict[str, np.ndarray]:
        """`losses`, `evaluated`, the coordinates along each axis by its name, alpha first, and `meta` as JSON."""
        axes = dict(zip(AXES, self.coordinates, strict=False))
        return {"losses": self.losses, "evaluated": self.evaluated, **axes, "meta": np.array(json.dumps(self.meta))}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Grid:
        """The grid of which `to_arrays` made these `arrays`."""
        coordinates = tuple(arrays[name] for name in AXES if name in arrays)
        return cls(arrays["losses"], coordinates, GridInfo.from_json(json.loads(str(arrays["meta"]))), arrays["evaluated"])

    def to_pandas(self) -> DataFrame:
        """A table of a row for each cell: its coordinates alpha, beta, gamma, its loss, and whether it was evaluated.

        Raises ImportError without pandas.
        """
        places = np.meshgrid(*self.coordinates, indexing="ij")
        columns = {name: place.reshape(-1) for name, place in zip(AXES, places, strict=False)}
        return table({**columns, "loss": self.losses.reshape(-1), "evaluated": self.evaluated.reshape(-1)})

    def __repr__(self) -> str:
        finite, info = self.losses[np.isfinite(self.losses)], self.info
        shape = "×".join(map(str, self.resolution))
        facts = [f"loss {finite.min():.4g}…{finite.max():.4g}" if finite.size else "no finite loss"]
        facts += [] if self.centre_loss is None else [f"centre {self.centre_loss:.4g}"]
        facts += [info.directions.kind] + ([] if info.rho is None else [f"ρ {info.rho:.3g}"])
        facts += [] if info.noise.floor is None else [f"noise {info.noise.floor:.1g}"]
        facts += [f"{self.num_nonfinite} not finite"] if self.num_nonfinite else []
        facts += [] if self.evaluated.all() else [f"{self.num_evaluated} evaluated"]
        return f"Grid({shape}, {', '.join(facts)})"

    def _write_csv(self, path: Path) -> None:
        names = [*"ijk"[: self.losses.ndim], *AXES[: self.losses.ndim], "loss"]
        has_predicted = not self.evaluated.all()
        with path.open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow([*names, "evaluated"] if has_predicted else names)
            for index in np.ndindex(self.losses.shape):
                place = [repr(float(axis[i])) for axis, i in zip(self.coordinates, index, strict=True)]
                row = [*index, *place, repr(float(self.losses[index]))]
                rows.writerow([*row, int(self.evaluated[index])] if has_predicted else row)
