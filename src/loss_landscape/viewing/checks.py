"""What can be drawn: another result, or a grid of other axes, is refused in a sentence that names the right picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loss_landscape.results.density import Density
from loss_landscape.results.grid import Grid
from loss_landscape.results.path_losses import PathLosses

MAKERS = {
    Grid: "evaluate_grid makes one, Grid(losses, coordinates) holds arrays that are at hand",
    Density: "spectral_density makes one",
    PathLosses: "barrier and path_losses make one",
}
PICTURES = {
    1: "plot_line draws a line, one axis",
    2: "plot_plane_contour and plot_plane_surface draw a plane, two axes",
    3: "plot_volume draws a volume, three axes",
}


def require_type(given: Any, wanted: type) -> None:
    """Raise a TypeError for what is no result of the type that is drawn."""
    name = wanted.__name__
    if isinstance(given, str | Path):
        raise TypeError(f"expected a {name} to draw, got {str(given)!r}; the path comes first, then the result")
    if not isinstance(given, wanted):
        instead = "plot_mode_curve draws losses along a path" if isinstance(given, PathLosses) else MAKERS[wanted]
        raise TypeError(f"expected a {name} to draw, got {type(given).__name__}; {instead}")


def require_axes(grid: Any, count: int) -> None:
    """Raise a TypeError for what is no grid, and a ValueError for one whose axes are not `count`."""
    require_type(grid, Grid)
    axes = grid.losses.ndim
    if axes != count:
        instead = PICTURES.get(axes, "grids of four axes and more have no picture")
        raise ValueError(f"{PICTURES[count]}, but this grid has {axes}, {list(grid.losses.shape)} losses: {instead}")
