"""What is found handed to whatever else a training logs its numbers with."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from loss_landscape.arguments import required_arguments
from loss_landscape.results.hessian_metrics import HessianMetrics
from loss_landscape.results.landscape import Landscape
from loss_landscape.results.trajectory import Trajectory

LogFunction = Callable[..., Any]
"""`wandb.log` or `mlflow.log_metrics`, of a dict; `SummaryWriter.add_scalar` or `mlflow.log_metric`, of a name and a number."""

STEPS = ("global_step", "step")
"""What a function of a name and a number may call the place in time."""

INSTEAD = "lambda numbers: f(numbers), or lambda name, number: f(name, number)"


class Mirror:
    """Passes numbers to a user's `function`, or to nobody: one that takes one thing gets a dict, one that takes two a call each.

    The epoch goes along as the step of a function of names that has a `global_step` or `step`, and as a number of its own to one
    of dicts, whose steps are the training's. Raises ValueError for a function that takes neither, or needs more.
    """

    def __init__(self, function: LogFunction | None):
        self._function = function
        self._step: str | None = None
        self._takes_names = False
        if function is not None:
            self._look_at(function)

    def tell(self, group: str, numbers: Mapping[str, float | None], epoch: float) -> None:
        """Hand over the numbers that there are, as `group/name`."""
        if self._function is None:
            return
        known = {
            f"{group}/{name}": float(value) for name, value in numbers.items() if value is not None and not math.isnan(value)
        }
        if not self._takes_names:
            self._function({**known, f"{group}/epoch": float(epoch)})
            return
        place = {} if self._step is None else {self._step: round(epoch)}
        for name, value in known.items():
            self._function(name, value, **place)

    def _look_at(self, function: LogFunction) -> None:
        if not callable(function):
            raise ValueError(f"mirror must be a function such as wandb.log or SummaryWriter.add_scalar, got {function!r}")
        required = required_arguments(function, "mirror", instead=INSTEAD)
        if required[:1] == ["self"]:
            raise ValueError(
                "mirror is a method without its object, as wandb.log is before wandb.init(); give it when the object is there"
            )
        if len(required) not in (1, 2):
            raise ValueError(
                f"mirror has {len(required)} required arguments ({', '.join(required)}), so what it wants is not clear; give a "
                "function of a dict, such as wandb.log, or of a name and a number, such as SummaryWriter.add_scalar"
            )
        self._takes_names = len(required) == 2
        steps = (name for name in inspect.signature(function).parameters if name in STEPS and self._takes_names)
        self._step = next(steps, None)


def numbers_of(result: Landscape | HessianMetrics | Trajectory) -> tuple[str, dict[str, float | None]]:
    """The group and the numbers by which a result is logged."""
    if isinstance(result, Landscape):
        own_plane = "_of_path" if result.grid.info.directions.trajectory else ""
        return f"landscape_{result.mode}{own_plane}", _of_landscape(result)
    if isinstance(result, HessianMetrics):
        return "hessian", _of_curvature(result)
    shares = result.directions.explained_variance
    last = result.points[-1]
    return result.name, {
        "explained_variance": None if shares is None else sum(shares),
        "loss": last.loss,
        "plane_loss": last.plane_loss,
        "residual": last.residual,
        "largest_residual": max(result.residuals),
    }


def _of_landscape(landscape: Landscape) -> dict[str, float | None]:
    finite = landscape.grid.losses[np.isfinite(landscape.grid.losses)]
    return {
        "baseline_loss": landscape.baseline_loss,
        "lowest_loss": float(finite.min()) if finite.size else None,
        "highest_loss": float(finite.max()) if finite.size else None,
        "num_nonfinite": landscape.grid.num_nonfinite,
    }


def _of_curvature(metrics: HessianMetrics) -> dict[str, float | None]:
    return {
        "max_eigenvalue": metrics.max_eigenvalue,
        "min_eigenvalue": metrics.min_eigenvalue,
        "trace": metrics.trace.value,
        "trace_standard_error": metrics.trace.standard_error,
        "largest_residual": max(metrics.residuals),
        "num_unconverged": metrics.converged.count(False),
    }
