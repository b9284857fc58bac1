"""The pictures, under one name: `loss_landscape.plot.plot_line` and its like."""

from loss_landscape.viewing.plot import (
    plot_line,
    plot_mode_curve,
    plot_plane_contour,
    plot_plane_surface,
    plot_sam_comparison,
    plot_sam_surface,
    plot_spectrum,
    plot_volume,
)

__all__ = [
    "plot_line",
    "plot_mode_curve",
    "plot_plane_contour",
    "plot_plane_surface",
    "plot_sam_comparison",
    "plot_sam_surface",
    "plot_spectrum",
    "plot_volume",
]
