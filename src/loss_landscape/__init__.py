"""Where a net is on its loss surface, and how curved the surface is there.

The examples in the docstrings go on from this one, whose loss is 2w₁² + w₂²/2:

>>> import torch
>>> from torch import nn
>>> from loss_landscape import *
>>> model = nn.Linear(2, 1, bias=False)
>>> _ = nn.init.ones_(model.weight)
>>> batches = [(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.zeros(2, 1))]  # inputs and targets, batch by batch
>>> surface = LossSurface(model, nn.MSELoss(), batches)
>>> surface.loss(), surface.gradient()
(2.5, tensor([4., 1.]))
"""

from typing import TYPE_CHECKING, Any

from loss_landscape.callbacks.recorder import TrainingRecorder
from loss_landscape.checkpointing import Checkpointing
from loss_landscape.directions.custom import as_directions, custom_directions
from loss_landscape.directions.directions import (
    adam_directions,
    difference_directions,
    gradient_directions,
    hessian_directions,
    random_directions,
    three_point_directions,
)
from loss_landscape.directions.points import point_in
from loss_landscape.directions.trajectory import trajectory_directions
from loss_landscape.explorer.explorer import Explorer
from loss_landscape.grids.evaluate import evaluate_grid
from loss_landscape.grids.span import AutoSpan
from loss_landscape.operators.base import CurvatureOperator, MatrixOperator
from loss_landscape.operators.determinism import check_deterministic
from loss_landscape.operators.empirical_fisher import EmpiricalFisherOperator
from loss_landscape.operators.function import FunctionOperator
from loss_landscape.operators.gauss_newton import GaussNewtonOperator
from loss_landscape.operators.hessian import HessianOperator
from loss_landscape.operators.preconditioned import PreconditionedOperator
from loss_landscape.operators.sampled_fisher import KroneckerFactoredOperator, SampledFisherOperator
from loss_landscape.paths.connectivity import barrier, path_losses
from loss_landscape.paths.curve_fitting import fit_bezier, fit_curve, fit_polychain
from loss_landscape.paths.curves import Curve, CurveInfo, bezier, line, polychain
from loss_landscape.paths.repair import repair, repaired_line
from loss_landscape.results.density import Density
from loss_landscape.results.diagonal import DiagonalEstimate
from loss_landscape.results.directions import Directions
from loss_landscape.results.eigenpairs import Eigenpairs
from loss_landscape.results.estimate import Estimate
from loss_landscape.results.grid import Grid
from loss_landscape.results.hessian_metrics import HessianMetrics
from loss_landscape.results.info import DirectionInfo, GridInfo
from loss_landscape.results.landscape import Landscape
from loss_landscape.results.layers import LayerCurvature, LayerCurvatures
from loss_landscape.results.path_losses import PathLosses
from loss_landscape.results.trajectory import Trajectory
from loss_landscape.shards import Shard
from loss_landscape.sharpness.expected import expected_sharpness
from loss_landscape.sharpness.keskar import keskar_sharpness
from loss_landscape.sharpness.sam import asam_sharpness, first_order_sharpness, sam_sharpness
from loss_landscape.spectra.density import density_share, spectral_density
from loss_landscape.spectra.diagonal import diagonal
from loss_landscape.spectra.lanczos import eigenpairs, largest_magnitude_eigenpairs
from loss_landscape.spectra.layers import layer_curvature
from loss_landscape.spectra.stability import adam_preconditioner, stability_thresholds
from loss_landscape.spectra.traces import frobenius_norm, trace, trace_and_frobenius_norm
from loss_landscape.storage.database import LandscapeStorage
from loss_landscape.surface.strategy import Evaluation
from loss_landscape.surface.surface import LossSurface
from loss_landscape.topology import MergeTree, bottleneck_distance, merge_tree, persistence_barcode
from loss_landscape.units.alignment import Alignment, AlignmentInfo, align
from loss_landscape.units.flow import Consumer, Norm, Slot, UnitFlow, UnitLayer, unit_flow
from loss_landscape.units.graph import unit_groups
from loss_landscape.units.permutations import UnitGroups
from loss_landscape.writer.one_call import sample_landscape
from loss_landscape.writer.writer import LossLandscapeWriter

__version__: str

__all__ = [
    "Alignment",
    "AlignmentInfo",
    "AutoSpan",
    "Checkpointing",
    "Consumer",
    "CurvatureOperator",
    "Curve",
    "CurveInfo",
    "Density",
    "DiagonalEstimate",
    "DirectionInfo",
    "Directions",
    "Eigenpairs",
    "EmpiricalFisherOperator",
    "Estimate",
    "Evaluation",
    "Explorer",
    "FunctionOperator",
    "GaussNewtonOperator",
    "Grid",
    "GridInfo",
    "HessianMetrics",
    "HessianOperator",
    "KroneckerFactoredOperator",
    "Landscape",
    "LandscapeStorage",
    "LayerCurvature",
    "LayerCurvatures",
    "LossLandscapeWriter",
    "LossSurface",
    "MatrixOperator",
    "MergeTree",
    "Norm",
    "PathLosses",
    "PreconditionedOperator",
    "SampledFisherOperator",
    "Shard",
    "Slot",
    "TrainingRecorder",
    "Trajectory",
    "UnitFlow",
    "UnitGroups",
    "UnitLayer",
    "adam_directions",
    "adam_preconditioner",
    "align",
    "as_directions",
    "asam_sharpness",
    "barrier",
    "bezier",
    "bottleneck_distance",
    "check_deterministic",
    "custom_directions",
    "density_share",
    "diagonal",
    "difference_directions",
    "eigenpairs",
    "evaluate_grid",
    "expected_sharpness",
    "first_order_sharpness",
    "fit_bezier",
    "fit_curve",
    "fit_polychain",
    "frobenius_norm",
    "gradient_directions",
    "hessian_directions",
    "keskar_sharpness",
    "largest_magnitude_eigenpairs",
    "layer_curvature",
    "line",
    "merge_tree",
    "path_losses",
    "persistence_barcode",
    "point_in",
    "polychain",
    "random_directions",
    "repair",
    "repaired_line",
    "sam_sharpness",
    "sample_landscape",
    "spectral_density",
    "stability_thresholds",
    "three_point_directions",
    "trace",
    "trace_and_frobenius_norm",
    "trajectory_directions",
    "unit_flow",
    "unit_groups",
]


def _in_notebooks(result: object) -> str:
    """A result as notebooks show it."""
    from loss_landscape.viewing.notebooks import html_of  # imports matplotlib

    return html_of(result)


_SHOWN: tuple[Any, ...] = (
    Alignment,
    Curve,
    Density,
    DiagonalEstimate,
    Directions,
    Eigenpairs,
    Estimate,
    Grid,
    HessianMetrics,
    Landscape,
    LayerCurvature,
    LayerCurvatures,
    MergeTree,
    PathLosses,
    Trajectory,
)
for _shown in _SHOWN:
    _shown._repr_html_ = _in_notebooks  # here, as no room may import the pictures above it
if not TYPE_CHECKING:  # a module's __getattr__ would make every name known to a type checker

    def __getattr__(name: str) -> str:
        """`__version__`, read from the distribution's metadata when it is asked for: that takes longer than the import."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import metadata

        try:
            return metadata.version("taskshift")
        except metadata.PackageNotFoundError as error:
            raise AttributeError("loss_landscape has no version here: the distribution taskshift is not installed") from error
