"""How far does the loss rise when a step is taken uphill, at the net and on its Hessian's plane?"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

from loss_landscape import Grid, evaluate_sam_grid, first_order_sharpness
from taskshift.evaluators.axes import (
    RUNNING_STATISTICS,
    BatchNormOptions,
    GridOptions,
    HessianAxes,
    Normalization,
    copy_of,
    hessian_axes,
    hessian_plane,
    kept,
    request,
    text_file,
)
from taskshift.evaluators.evaluator import Evaluator, Findings, Measurement


class Sam(Evaluator):
    """L(θ + ρ g/‖g‖) over the Hessian's plane, g the gradient at each point, beside the plane without that step.

    With `rho_relative`, ρ is `rho` times the norm of the trained parameters, so that tasks are comparable while the norm grows;
    the same ρ then holds for the whole plane. A cell costs a gradient more than one of the plain plane does: `subsample_stride` 2
    takes every second coordinate of that, the centre among them.
    """

    def __init__(
        self,
        rho: float = 0.05,
        rho_relative: bool = True,
        subsample_stride: int = 2,
        grid_resolution: int = 41,
        high_res: bool = False,
        span: tuple[float, float] = (-1.0, 1.0),
        hessian_axes: HessianAxes = "top",
        hessian_normalization: Normalization = "model",
        bn: BatchNormOptions = RUNNING_STATISTICS,
        chunk_size: int | None = None,
        max_eval_points_cap: int = 4096,
        save_numpy: bool = True,
        save_csv: bool = True,
        save_plots: bool = True,
    ):
        if not 0 < rho < math.inf:
            raise ValueError(f"rho is {rho}; give the length of the step, above 0")
        self.options = GridOptions(grid_resolution, high_res, span, chunk_size, max_eval_points_cap, bn)
        if not 1 <= subsample_stride <= self.options.resolution // 2:
            raise ValueError(
                f"subsample_stride is {subsample_stride}; give 1 for every cell, up to {self.options.resolution // 2} for "
                f"{self.options.resolution} cells a side"
            )
        self.rho, self.rho_relative, self.stride = rho, rho_relative, subsample_stride
        self.hessian_axes, self.hessian_normalization = hessian_axes, hessian_normalization
        self.save_numpy, self.save_csv, self.save_plots = save_numpy, save_csv, save_plots
        self.request = request(hessian_axes)

    def __call__(self, measurement: Measurement) -> Findings:
        surface = self.options.surface(measurement)
        loss, norm = surface.loss(), surface.origin.double().norm().item()
        if not math.isfinite(loss):
            return Findings(
                {}, {"LEFT_OUT.txt": text_file(f"The loss at the net's parameters is {loss}: there is no way uphill.\n")}
            )
        rho = self.rho * norm if self.rho_relative else self.rho
        plain = hessian_plane(measurement, self.options, self.hessian_axes, self.hessian_normalization)
        folder = measurement.scratch / "sam"
        grid = kept(folder, partial(self._evaluated, measurement, rho))
        scalars = {
            "sharpness": grid.meta["baseline_loss"] - loss,
            "first_order_sharpness": first_order_sharpness(surface, rho),
            "rho_absolute": rho,
            "rho_relative": rho / norm if norm else math.nan,
            "num_nonfinite": float(grid.meta["num_nonfinite"]),
        }
        saved = {"grid.npy": self.save_numpy, "grid.csv": self.save_csv, "meta.json": True}
        files = {name: copy_of(folder / name) for name, wanted in saved.items() if wanted}
        if self.save_plots:
            where = f"{measurement.phase} of task {measurement.task.index}"
            files["sam_surface.png"] = partial(_surface, grid=grid, title=f"SAM surface, {where}")
            files["comparison.png"] = partial(_comparison, plain=plain, sam=grid, title=f"Loss and SAM surface, {where}")
        return Findings(scalars, files)

    def _evaluated(self, measurement: Measurement, rho: float) -> Grid:
        grid = evaluate_sam_grid(
            self.options.surface(measurement),
            hessian_axes(measurement, self.hessian_axes, self.hessian_normalization),
            rho,
            self.options.resolution,
            self.options.span,
            self.stride,
            partial=measurement.scratch / "sam.partial.npz",
        )
        return replace(self.options.described(grid), meta={**self.options.described(grid).meta, "rho": self.rho})


def _surface(path: Path, grid: Grid, title: str) -> None:
    from loss_landscape.plot import plot_sam_surface  # imports matplotlib

    plot_sam_surface(path, grid, title=title)


def _comparison(path: Path, plain: Grid, sam: Grid, title: str) -> None:
    from loss_landscape.plot import plot_sam_comparison

    plot_sam_comparison(path, plain, sam, title=title)
