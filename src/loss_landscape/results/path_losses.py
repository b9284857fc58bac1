"""Losses along a curve between two nets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loss_landscape.results.info import GridInfo
from loss_landscape.results.result import Result, table

if TYPE_CHECKING:
    from pandas import DataFrame

ARRAYS = ("t", "losses", "lengths")


@dataclass(frozen=True, eq=False, repr=False)
class PathLosses(Result):
    """The losses along a curve, from one net at t = 0 to the other at t = 1.

    `t`, `losses` and `lengths`, how long the curve is up to each t, are [T], float64. `info` is what is known of them, nothing
    for losses given by hand; its JSON form is taken as well.

    >>> path = barrier(surface, torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.0]), num_points=3)
    >>> path
    PathLosses(line, 3 points, length 2, highest 2 at t = 0, barrier 0)
    >>> path.losses.tolist()
    [2.0, 0.0, 2.0]
    """

    t: np.ndarray
    losses: np.ndarray
    lengths: np.ndarray
    info: GridInfo = GridInfo()

    def __post_init__(self) -> None:
        shapes = {name: np.shape(getattr(self, name)) for name in ARRAYS}
        if len(set(shapes.values())) > 1 or len(shapes["t"]) != 1:
            raise ValueError(f"expected t, losses and lengths of one shape [T], got {shapes}")
        for name in ARRAYS:
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        if isinstance(self.info, Mapping):
            object.__setattr__(self, "info", GridInfo.from_json(self.info))

    @property
    def meta(self) -> dict[str, Any]:
        """`info` in its JSON form."""
        return self.info.to_json()

    @property
    def barrier(self) -> float:
        """max_t L(t) − ((1 − t)·L(0) + t·L(1)): how far the loss rises above the straight line between the ends' losses.

        Entezari et al. 2022, at the points evaluated, the ends among them: never below 0. Where the ends' losses are equal
        it is the instability of Frankle et al. 2020.
        """
        first, last = self.losses[0], self.losses[-1]
        with np.errstate(invalid="ignore"):  # inf − inf is the NaN that it should be
            rise = last - first
            chord = np.where(self.t < 0.5, first + self.t * rise, last - (1 - self.t) * rise)  # the ends' losses to the last bit
            return float((self.losses - chord).max())

    @property
    def highest(self) -> float:
        """The highest loss, max_t L(t)."""
        return float(self.losses.max())

    @property
    def t_highest(self) -> float:
        """The t of the highest loss, the first of several."""
        return float(self.t[self.losses.argmax()])

    @property
    def mean(self) -> float:
        """The mean loss over the curve's length (Garipov et al. 2018, eq. 1), by the trapezoidal rule."""
        if self.lengths[-1] == 0:
            return float(self.losses.mean())
        with np.errstate(invalid="ignore"):
            trapezoids = np.diff(self.lengths) * (self.losses[1:] + self.losses[:-1]) / 2.0
        return float(trapezoids.sum() / self.lengths[-1])

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The fields by name, `info` as JSON."""
        return {name: getattr(self, name) for name in ARRAYS} | {"info": np.array(json.dumps(self.meta))}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> PathLosses:
        """The losses of which `to_arrays` made these `arrays`."""
        info = GridInfo.from_json(json.loads(str(arrays["info"])))
        return cls(**{name: arrays[name] for name in ARRAYS}, info=info)

    def to_pandas(self) -> DataFrame:
        """A row a point: `t`, `loss` and `length`; ImportError without pandas."""
        return table({"t": self.t, "loss": self.losses, "length": self.lengths})

    def __repr__(self) -> str:
        highest = f"highest {self.highest:.4g} at t = {self.t_highest:.3g}"
        facts = [f"{len(self.t)} points", f"length {self.lengths[-1]:.4g}", highest, f"barrier {self.barrier:.4g}"]
        facts += [self.info.directions.not_moved_note] if self.info.directions.not_moved else []
        return f"PathLosses({self.info.directions.kind}, {', '.join(facts)})"
