"""A line, a plane or a volume as the Writer and the Explorer give it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loss_landscape.results.documented import Documented
from loss_landscape.results.grid import Grid

MODES = ("1d", "2d", "3d")
SHAPES = dict(zip(MODES, ("line", "plane", "volume"), strict=True))
"""What the grid of a mode is called."""

LOSS_KEYS = ("loss_line_1d", "loss_grid_2d", "loss_grid_3d")
PLACE_KEYS = ("X", "Y", "Z")


@dataclass(frozen=True, eq=False, repr=False)
class Landscape(Documented):
    """A sampled landscape: its `grid`, also by the keys X, Y, Z, loss_line_1d, loss_grid_2d or loss_grid_3d and more.

    `X[i, j]` is the first coordinate of cell i, j (ij order), in units of the first direction. `grid.info` has the directions'
    description, the float noise floor, and in `extra` how the loss was put together.

    >>> landscape = Landscape(evaluate_grid(surface, torch.eye(2), 3))
    >>> [landscape[key][2, 1].item() for key in ("X", "Y", "loss_grid_2d")]
    [1.0, 0.0, 8.5]
    """

    grid: Grid

    @property
    def mode(self) -> str:
        """1d, 2d or 3d."""
        return MODES[self.grid.losses.ndim - 1]

    @property
    def baseline_loss(self) -> float | None:
        """The loss at the net's own parameters."""
        return self.grid.info.baseline_loss

    @property
    def range_scale(self) -> float:
        """How far the grid reaches along each direction."""
        return max(abs(edge) for pair in self.grid.span for edge in pair)

    @property
    def plane(self) -> str:
        """The fingerprint of the net and the directions, the same as that of paths on it."""
        return str(self.grid.info.extra.get("plane", ""))

    @property
    def notes(self) -> Sequence[str]:
        """What must be known before it is believed."""
        return list(self.grid.info.extra.get("notes", ()))

    def documented(self) -> dict[str, Any]:
        """The grid as the documented arrays, with baseline_loss, grid_size, range_scale and mode."""
        places = np.meshgrid(*self.grid.coordinates, indexing="ij")
        sides = set(self.grid.resolution)
        return {
            **dict(zip(PLACE_KEYS, places, strict=False)),
            LOSS_KEYS[self.grid.losses.ndim - 1]: self.grid.losses,
            "baseline_loss": self.baseline_loss,
            "grid_size": self.grid.resolution[0] if len(sides) == 1 else list(self.grid.resolution),
            "range_scale": self.range_scale,
            "mode": self.mode,
        }

    def __repr__(self) -> str:
        notes = f", {len(self.notes)} note{'s' if len(self.notes) != 1 else ''}" if self.notes else ""
        return f"Landscape({self.grid!r}{notes})"
