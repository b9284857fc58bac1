"""What the analyses give back: values with their errors, grids, densities."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

AXES = ("alpha", "beta", "gamma")


@dataclass(frozen=True)
class Estimate:
    """A value, its standard error, and how many independent samples it rests on. Exact values have error 0."""

    value: float
    standard_error: float
    num_samples: int
    note: str = ""  # what went otherwise than asked

    @classmethod
    def from_samples(cls, samples: Tensor) -> Estimate:
        """The mean of independent samples [n]; the error of a single one is unknown, NaN."""
        samples = samples.double()
        count = len(samples)
        error = float(samples.std()) / math.sqrt(count) if count > 1 else math.nan
        return cls(float(samples.mean()), error, count)

    def root(self) -> Estimate:
        """The square root, its error to first order."""
        root = math.sqrt(self.value)
        return replace(self, value=root, standard_error=self.standard_error / (2 * root) if root else self.standard_error)


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


@dataclass(frozen=True, eq=False)
class Density:
    """The spectrum of a P×P operator as a weighted sum of points, a row for each probe. The weights of a row sum to 1."""

    nodes: Tensor  # [num_probes, m], float64; unused places hold 0
    weights: Tensor  # [num_probes, m], float64; unused places hold 0
    size: int  # P
    zero: float  # |λ| up to here counts as 0
    note: str = ""  # what went otherwise than asked

    def expectation(self, function: Callable[[Tensor], Tensor]) -> Estimate:
        """The mean of `function` over the P eigenvalues, with its standard error over the probes."""
        known = torch.where(self.nodes.isnan(), torch.nan, function(self.nodes).double())
        terms = torch.where(self.weights == 0, 0, self.weights * known)  # unused places count for nothing, also where f(0) = −∞
        return replace(Estimate.from_samples(terms.sum(dim=1)), note=self.note)

    def trace_of(self, function: Callable[[Tensor], Tensor]) -> Estimate:
        """tr f(H), the sum of `function` over the P eigenvalues."""
        mean = self.expectation(function)
        return replace(mean, value=mean.value * self.size, standard_error=mean.standard_error * self.size)

    @property
    def trace(self) -> Estimate:
        """tr H."""
        return self.trace_of(lambda nodes: nodes)

    @property
    def frobenius_norm(self) -> Estimate:
        """‖H‖_F, the root of tr H²."""
        return self.trace_of(torch.square).root()

    def log_determinant(self, shift: float = 0.0) -> Estimate:
        """log det(H + shift·I); NaN where a node is below −shift, as then it may not be positive definite."""
        return self.trace_of(lambda nodes: torch.log(nodes + shift))

    def moment(self, order: int) -> Estimate:
        """The mean of λ^order, tr(H^order)/P."""
        return self.expectation(lambda nodes: nodes**order)

    @property
    def negative_mass(self) -> Estimate:
        """The share of eigenvalues below 0, those that count as 0 left out."""
        return self.expectation(lambda nodes: nodes < -self.zero)

    def effective_dimension(self, scale: float) -> Estimate:
        """Σ λ/(λ + scale) over the positive eigenvalues: how many are large compared with `scale`."""
        if scale <= 0:
            raise ValueError(f"scale must be > 0, got {scale}")
        return self.trace_of(lambda nodes: nodes.clamp_min(0) / (nodes.clamp_min(0) + scale))

    def epsilon_rank(self, epsilon: float) -> Estimate:
        """How many eigenvalues have |λ| > epsilon · max |λ|."""
        threshold = max(epsilon * float(self.nodes.abs().max()), self.zero)
        return self.trace_of(lambda nodes: nodes.abs() > threshold)

    def density(self, x: Tensor | np.ndarray, sigma: float | None = None) -> Tensor:
        """The density at `x`, float64, each node smoothed to a Gaussian of width `sigma`; its integral is 1.

        Unless given, sigma follows the resolution of m nodes over their range R: R / ((m − 1) √(8 ln 3)) (Papyan 2020).
        """
        x = torch.as_tensor(x, dtype=torch.float64)
        sigma = sigma or self.default_sigma
        bumps = torch.exp(-0.5 * ((x.reshape(-1, 1) - self.nodes.reshape(1, -1)) / sigma) ** 2) @ self.weights.reshape(-1)
        return (bumps / (len(self.nodes) * sigma * math.sqrt(2 * math.pi))).reshape(x.shape)

    @property
    def default_sigma(self) -> float:
        """The smoothing width that `density` takes."""
        used = self.nodes[self.weights > 0]
        spread = float(used.max() - used.min())
        steps = max(self.nodes.shape[1] - 1, 1)
        return spread / (steps * math.sqrt(8 * math.log(3))) or max(1e-3 * float(used.abs().max()), 1e-12)


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place at once, safe from a crash; makes the folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".partial.{path.name}")  # the suffix stays: np.save and matplotlib look at it
    write(beside)
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.replace(path)
