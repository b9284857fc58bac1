"""The pictures, under one name: `loss_landscape.plot.plot_line` and its like. Each writes a file and returns the figure."""

from loss_landscape.viewing.lines import plot_line, plot_mode_curve
from loss_landscape.viewing.planes import (
    plot_plane_contour,
    plot_plane_surface,
    plot_sam_comparison,
    plot_sam_contour,
    plot_volume,
)
from loss_landscape.viewing.spectra import plot_spectrum

__all__ = [
    "plot_line",
    "plot_mode_curve",
    "plot_plane_contour",
    "plot_plane_surface",
    "plot_sam_comparison",
    "plot_sam_contour",
    "plot_spectrum",
    "plot_volume",
]
