"""How far does the loss rise when a step is taken uphill, at the net and on its Hessian's plane?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from loss_landscape import (
    Evaluation,
    Grid,
    LossSurface,
    asam_sharpness,
    evaluate_grid,
    expected_sharpness,
    first_order_sharpness,
    keskar_sharpness,
)
from loss_landscape.surface.strategy import Precision
from taskshift.evaluators.axes import (
    RUNNING_STATISTICS,
    BatchNormOptions,
    GridOptions,
    HessianAxes,
    HessianPlane,
    Normalization,
    SavedFiles,
    Span,
    kept,
    request,
    text_file,
    too_long_is_a_fault,
    with_notes,
)
from taskshift.evaluators.evaluator import Evaluator, Findings, Measurement
from taskshift.quantities import Column, Quantity


@dataclass(frozen=True)
class OtherMeasures:
    """Sharpness at θ by other measures than SAM's; each can be switched off."""

    asam_rho: float | None
    asam_eta: float
    keskar_epsilon: float
    keskar_steps: int
    expected_samples: int

    def __post_init__(self) -> None:
        if self.asam_rho is not None and not 0 < self.asam_rho < math.inf:
            raise ValueError(f"asam_rho is {self.asam_rho}; give a length above 0, or null to leave asam_sharpness out")
        if not 0 <= self.asam_eta < math.inf:
            raise ValueError(f"asam_eta is {self.asam_eta}; give what is added to |θ|, 0 or above")
        if not 0 < self.keskar_epsilon < math.inf:
            raise ValueError(f"keskar_epsilon is {self.keskar_epsilon}; give the size of the box, above 0")
        if self.keskar_steps < 0:
            raise ValueError(f"keskar_steps is {self.keskar_steps}; give at least 1, or 0 to leave keskar_sharpness out")
        if self.expected_samples < 0 or self.expected_samples == 1:
            given = self.expected_samples
            raise ValueError(f"expected_samples is {given}; give at least 2, or 0 to leave expected_sharpness out")

    def sharpness(self, measurement: Measurement, surface: LossSurface, rho: float) -> dict[str, float]:
        """Those that are switched on, by name; the random steps are as long as `rho`."""
        found: dict[str, float] = {}
        if self.asam_rho is not None:
            found["asam_sharpness"] = asam_sharpness(surface, self.asam_rho, eta=self.asam_eta)
        if self.keskar_steps:
            draw = measurement.generator("keskar sharpness")
            found["keskar_sharpness"] = keskar_sharpness(
                surface, self.keskar_epsilon, num_steps=self.keskar_steps, generator=draw
            )
        if self.expected_samples and rho:
            draw, sigma = measurement.generator("expected sharpness"), rho / math.sqrt(surface.size)
            mean = expected_sharpness(surface, sigma, num_samples=self.expected_samples, generator=draw)
            found |= {"expected_sharpness": mean.value, "expected_sharpness_standard_error": mean.standard_error}
        return found


QUANTITIES = (
    Quantity(
        "sharpness",
        "L(θ + ρ g/‖g‖) − L(θ)",
        "loss",
        "Foret et al. 2021",
        panel="SAM: rise of the loss by an ascent of ρ",
        columns=(Column("sharp-\nness", key="sharpness"),),
    ),
    Quantity("first_order_sharpness", "ρ ‖g‖, which sharpness is for small ρ", "loss"),
    Quantity(
        "asam_sharpness",
        "L(θ + ρ T²g/‖Tg‖) − L(θ), T = |θ| + η, ρ and η being `asam_rho` and `asam_eta`",
        "loss",
        "Kwon et al. 2021",
    ),
    Quantity(
        "keskar_sharpness",
        "100 · (max L − L(θ))/(1 + L(θ)) over the box |zᵢ| ≤ ε(|θᵢ| + 1), by `keskar_steps` steps of projected "
        "sign-gradient ascent, a quarter of the box's half-width each, from random signs 1/100 of it away; a lower bound",
        "%",
        "Keskar et al. 2017, metric 2.1; `keskar_epsilon`",
    ),
    Quantity(
        "expected_sharpness",
        "mean of L(θ + z) − L(θ), z Gaussian of standard deviation ρ/√P in each of the P parameters, as long as the "
        "step: E‖z‖² = ρ²; `expected_samples` pairs ±z",
        "loss",
        error="expected_sharpness_standard_error",
    ),
    Quantity("expected_sharpness_standard_error", "standard deviation over the pairs / √pairs", "loss"),
    Quantity("rho_absolute", "ρ", "θ"),
    Quantity("rho_relative", "ρ / ‖θ‖", "share"),
    Quantity("num_nonfinite", "cells of the surface that are NaN or infinite", "cells"),
)


class Sam(Evaluator):
    """L(θ + ρ g/‖g‖) over the Hessian's plane, g the gradient at each point, beside the plane without that step.

    With `rho_relative`, ρ is `rho` times the norm of the trained parameters, so that tasks are comparable while the norm grows;
    the same ρ then holds for the whole plane. A cell costs a gradient more than one of the plain plane does: `subsample_stride` 2
    takes every second coordinate of that, the centre among them. Its span is that of the plain plane.

    Beside it, sharpness at θ by other measures: of a step of each parameter's own size (`asam_rho`, null: none), of the largest
    loss in a box (`keskar_steps` of sign ascent, 0: none), and of random steps as long as ρ (`expected_samples` pairs, 0: none).
    """

    quantities = QUANTITIES

    def __init__(
        self,
        rho: float = 0.05,
        rho_relative: bool = True,
        subsample_stride: int = 2,
        asam_rho: float | None = 0.5,
        asam_eta: float = 0.01,
        keskar_epsilon: float = 1e-3,
        keskar_steps: int = 20,
        expected_samples: int = 16,
        grid_resolution: int = 41,
        high_res: bool = False,
        span: Span = (-1.0, 1.0),
        hessian_axes: HessianAxes = "top",
        hessian_normalization: Normalization = "model",
        bn: BatchNormOptions = RUNNING_STATISTICS,
        chunk_size: int | None = None,
        max_eval_points_cap: int = 4096,
        precision: Precision = None,
        save_numpy: bool = True,
        save_csv: bool = True,
        save_plots: bool = True,
    ):
        if not 0 < rho < math.inf:
            raise ValueError(f"rho is {rho}; give the length of the step, above 0")
        self.others = OtherMeasures(asam_rho, asam_eta, keskar_epsilon, keskar_steps, expected_samples)
        self.options = GridOptions(grid_resolution, high_res, span, chunk_size, max_eval_points_cap, bn, precision)
        if not 1 <= subsample_stride <= self.options.resolution // 2:
            raise ValueError(
                f"subsample_stride is {subsample_stride}; 1 takes every cell, 2 every other, and grid_resolution="
                f"{self.options.resolution} allows at most {self.options.resolution // 2}"
            )
        self.rho, self.rho_relative, self.stride = rho, rho_relative, subsample_stride
        self.plane = HessianPlane(hessian_axes, hessian_normalization, self.options)
        self.saved = SavedFiles(save_numpy, save_csv, save_plots)
        self.request = request(hessian_axes)

    def __call__(self, measurement: Measurement) -> Findings:
        surface = self.options.surface(measurement)
        loss, norm = surface.loss(), surface.origin.double().norm().item()
        if not math.isfinite(loss):
            return Findings(
                {}, {"LEFT_OUT.txt": text_file(f"The loss at the net's parameters is {loss}: there is no way uphill.\n")}
            )
        rho = self.rho * norm if self.rho_relative else self.rho
        plain = self.plane.grid(measurement)
        folder = measurement.scratch / "sam"
        grid = kept(folder, partial(self._evaluated, measurement, rho, plain))
        scalars = {
            "sharpness": grid.info.baseline_loss - loss,
            "first_order_sharpness": first_order_sharpness(surface, rho),
            "rho_absolute": rho,
            "rho_relative": rho / norm if norm else math.nan,
            "num_nonfinite": float(grid.num_nonfinite),
            **self.others.sharpness(measurement, surface, rho),
        }
        files = self.saved.of(folder)
        if self.saved.plots:
            where = f"{measurement.phase} of task {measurement.task.index}"
            files["sam_surface.png"] = partial(_surface, grid=grid, title=f"SAM surface, {where}")
            files["comparison.png"] = partial(_comparison, plain=plain, sam=grid, title=f"Loss and SAM surface, {where}")
        return Findings(scalars, files)

    def _evaluated(self, measurement: Measurement, rho: float, plain: Grid) -> Grid:
        """The SAM surface on the cells that the stride leaves of the plain plane."""
        surface = self.options.surface(measurement)
        directions = self.plane.directions(measurement)
        axes = [subsampled(axis, self.stride) for axis in plain.coordinates]
        span = [(axis[0], axis[-1]) for axis in axes]
        evaluation = Evaluation(measurement.settings.compile, self.options.chunk_size)
        checkpointing = self.options.checkpointing(measurement, measurement.scratch / "sam.partial.npz")
        options = {"rho": rho, "evaluation": evaluation, "checkpointing": checkpointing}
        with too_long_is_a_fault():
            grid = evaluate_grid(surface, directions, len(axes[0]), span, **options)
        return with_notes(self.options.described(grid), rho=self.rho, stride=self.stride)


def subsampled(axis: np.ndarray, stride: int) -> np.ndarray:
    """Every so many of an axis's coordinates, the middle one among them where there is one.

    A grid over their span has these very coordinates where the stride divides the steps to either end, as 2 does with 41 cells
    a side; elsewhere the last bits of some may differ, since they are counted from other ends.
    """
    return axis[(len(axis) // 2) % stride if len(axis) % 2 else 0 :: stride]


def _surface(path: Path, grid: Grid, title: str) -> None:
    from loss_landscape.plot import plot_sam_contour  # imports matplotlib

    plot_sam_contour(path, grid, title=title)


def _comparison(path: Path, plain: Grid, sam: Grid, title: str) -> None:
    from loss_landscape.plot import plot_sam_comparison

    plot_sam_comparison(path, plain, sam=sam, title=title)
