"""Where a net is on its loss surface, and how curved the surface is there."""

from loss_landscape.density import spectral_density
from loss_landscape.directions import (
    Directions,
    adam_directions,
    custom_directions,
    difference_directions,
    gradient_directions,
    hessian_directions,
    random_directions,
    three_point_directions,
)
from loss_landscape.flatness import keskar_sharpness
from loss_landscape.lanczos import Eigenpairs, eigenpairs
from loss_landscape.operator import CurvatureOperator, MatrixOperator
from loss_landscape.operators import EmpiricalFisherOperator, GaussNewtonOperator, HessianOperator
from loss_landscape.plane import evaluate_grid
from loss_landscape.results import Density, Estimate, Grid
from loss_landscape.sharpness import (
    asam_sharpness,
    evaluate_sam_grid,
    expected_sharpness,
    first_order_sharpness,
    sam_sharpness,
)
from loss_landscape.stability import PreconditionedOperator, adam_preconditioner, stability_thresholds
from loss_landscape.surface import LossSurface
from loss_landscape.topology import MergeTree, bottleneck_distance, merge_tree, persistence_barcode
from loss_landscape.traces import trace
from loss_landscape.trajectory import trajectory_directions

__all__ = [
    "CurvatureOperator",
    "Density",
    "Directions",
    "Eigenpairs",
    "EmpiricalFisherOperator",
    "Estimate",
    "GaussNewtonOperator",
    "Grid",
    "HessianOperator",
    "LossSurface",
    "MatrixOperator",
    "MergeTree",
    "PreconditionedOperator",
    "adam_directions",
    "adam_preconditioner",
    "asam_sharpness",
    "bottleneck_distance",
    "custom_directions",
    "difference_directions",
    "eigenpairs",
    "evaluate_grid",
    "evaluate_sam_grid",
    "expected_sharpness",
    "first_order_sharpness",
    "gradient_directions",
    "hessian_directions",
    "keskar_sharpness",
    "merge_tree",
    "persistence_barcode",
    "random_directions",
    "sam_sharpness",
    "spectral_density",
    "stability_thresholds",
    "three_point_directions",
    "trace",
    "trajectory_directions",
]
