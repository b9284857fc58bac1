"""Where a net is on its loss surface, and how curved the surface is there."""

from loss_landscape.density import spectral_density
from loss_landscape.directions import (
    Directions,
    custom_directions,
    gradient_directions,
    hessian_directions,
    random_directions,
)
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
from loss_landscape.surface import LossSurface
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
    "asam_sharpness",
    "custom_directions",
    "eigenpairs",
    "evaluate_grid",
    "evaluate_sam_grid",
    "expected_sharpness",
    "first_order_sharpness",
    "gradient_directions",
    "hessian_directions",
    "random_directions",
    "sam_sharpness",
    "spectral_density",
    "trace",
    "trajectory_directions",
]
