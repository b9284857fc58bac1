"""Is the net joined to an earlier one, or to one trained from another seed, by a path of low loss?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from loss_landscape import Curve, LossSurface, PathLosses, align, bezier, fit_curve, line, path_losses, point_in, repaired_line
from loss_landscape.checkpointing import Checkpointing
from loss_landscape.paths.curves import evenly_spaced
from taskshift import checkpoint
from taskshift.evaluators.axes import text_file
from taskshift.evaluators.evaluator import Artifact, Evaluator, Findings, Measurement, json_file
from taskshift.nets.weights import fitting_state
from taskshift.quantities import Quantity

State = Mapping[str, Tensor]


class LeftOut(Exception):
    """Says in a sentence why there is nothing to connect."""


QUANTITIES = (
    Quantity(
        "<path>_barrier",
        "max_t L(t) − ((1 − t)L(0) + tL(1)); 0 where the path lies below the line between its ends' losses",
        "loss",
        "Entezari et al. 2022",
    ),
    Quantity("<path>_highest_loss", "max_t L(t), the ends included", "loss"),
    Quantity("<path>_mean_loss", "mean of L over the path's length", "loss", "Garipov et al. 2018, eq. 1"),
    Quantity("<path>_length", "length of the path; of `linear` ‖θ_B − θ_A‖", "θ"),
    Quantity("start_loss", "L(θ_A)", "loss"),
    Quantity("end_loss", "L(θ_B)", "loss"),
    Quantity("opt_seconds", "wall time of training the bends, over all attempts", "s"),
    Quantity(
        "fell_back",
        "1 where the bends stayed on the straight line: `max_seconds` were over, or they were no longer finite",
        "0 or 1",
    ),
)


class ModeConnectivity(Evaluator):
    """The present task's loss along the straight line and along a Bézier curve from another net, θ_A, to the present one, θ_B.

    θ_A is the net at the end of the task `delta` before this one, or, where `use_second_run` and there is one, a net trained
    like this one from another seed. The curve's bends are trained on the first `data_subset_batches` evaluation batches (null:
    all) by `opt_steps` steps; both paths are then evaluated at `curve_points` points over all of them. Nets with batch norm get
    its running statistics taken anew at each point. A fit that takes more than `max_seconds` ends on the straight line, and says
    so. With `align`, θ_A's units are put into the order of θ_B's (by their `weights`, or their `activations` on the first batch),
    and the straight line is evaluated again, as it is and after REPAIR. With `matrix`, the run's end has the barrier of every
    pair of nets, of at most `max_matrix_tasks` tasks.
    """

    quantities = QUANTITIES

    def __init__(
        self,
        curve_points: int = 61,
        opt_steps: int = 100,
        lr: float = 0.01,
        use_second_run: bool = True,
        data_subset_batches: int | None = 1,
        delta: int = 1,
        num_bends: int = 1,
        max_seconds: float | None = None,
        align: Literal["none", "weights", "activations"] = "none",
        matrix: bool = True,
        max_matrix_tasks: int = 24,
        save_plots: bool = True,
    ):
        least = {"curve_points": (curve_points, 3), "opt_steps": (opt_steps, 1), "delta": (delta, 1), "num_bends": (num_bends, 1)}
        least["max_matrix_tasks"] = (max_matrix_tasks, 2)
        if data_subset_batches is not None:
            least["data_subset_batches"] = (data_subset_batches, 1)
        for name, (value, smallest) in least.items():
            if value < smallest:
                raise ValueError(f"{name} is {value}; give at least {smallest}")
        if not 0 < lr < math.inf:
            raise ValueError(f"lr is {lr}; give a step size above 0")
        if max_seconds is not None and not max_seconds >= 0:
            raise ValueError(f"max_seconds is {max_seconds}; give 0 or more, or null for no limit")
        self.curve_points, self.opt_steps, self.lr, self.num_bends = curve_points, opt_steps, lr, num_bends
        self.use_second_run, self.delta, self.max_seconds = use_second_run, delta, max_seconds
        self.data_subset_batches, self.save_plots = data_subset_batches, save_plots
        self.align, self.matrix, self.max_matrix_tasks = align, matrix, max_matrix_tasks

    def __call__(self, measurement: Measurement) -> Findings:
        surface = connecting_surface(measurement)
        try:
            name, file = self._start(measurement)
            checkpoint.require_intact(file)
            state = fitting_state(measurement.training.net, file)
            paths = {"linear": self._straight(measurement, surface, state)}
        except LeftOut as reason:
            return Findings({}, {"LEFT_OUT.txt": text_file(f"{reason}\n")})
        curve = self._curve(measurement, surface, point_in(surface, state))
        paths["curve"] = self._losses(measurement, surface, curve)
        if self.align != "none":
            paths |= self._aligned(measurement, surface, state)
        fit = curve.info
        scalars = numbers_of(paths) | {"opt_seconds": fit.seconds, "fell_back": float(fit.fell_back is not None)}
        facts = {"start": name, "batch_norm": surface.objective.batch_norm, **scalars, "fell_back": fit.fell_back}
        facts |= {"steps": fit.steps, "lr": fit.lr, "num_bends": self.num_bends, "training_losses": list(fit.training_losses)}
        losses = {path: found.losses.tolist() for path, found in paths.items()}
        artifacts: dict[str, Artifact] = {"metrics.json": json_file(facts | {"t": paths["linear"].t.tolist(), "losses": losses})}
        if self.save_plots:
            title = f"From {name} to the {measurement.phase} of task {measurement.task.index}"
            artifacts["curve.png"] = partial(_picture, straight=paths["linear"], fitted=paths["curve"], title=title)
        return Findings(scalars, artifacts)

    def _start(self, measurement: Measurement) -> tuple[str, Path]:
        """The other net, in words and on disk."""
        if self.use_second_run and measurement.kept.second_run is not None:
            return "the second run", measurement.kept.second_run
        if measurement.phase == "start":
            raise LeftOut("At a task's start the net is the one that the task before it ended with; its end is connected.")
        index = measurement.task.index - self.delta
        if index in measurement.kept.earlier:
            return f"the end of task {index}" if index >= 0 else "the task's first snapshot", measurement.kept.earlier[index]
        if index < 0:
            raise LeftOut(f"Task {measurement.task.index} has no task {self.delta} before it to be connected with.")
        raise LeftOut(f"The net at the end of task {index} is no longer there; checkpoints.keep={self.delta} or more keeps it.")

    def _straight(self, measurement: Measurement, surface: LossSurface, state: State) -> PathLosses:
        found = self._losses(measurement, surface, line(point_in(surface, state), surface.origin))
        for which, loss in (("other", found.losses[0]), ("present", found.losses[-1])):
            if not math.isfinite(loss):
                raise LeftOut(f"The loss of the {which} net is {loss}, so a path between the two has no barrier.")
        return found

    def _losses(self, measurement: Measurement, surface: LossSurface, curve: Curve) -> PathLosses:
        kept = Checkpointing(measurement.scratch / f"{curve.info.kind}.partial.npz")
        return path_losses(surface, curve, num_points=self.curve_points, checkpointing=kept)

    def _aligned(self, measurement: Measurement, surface: LossSurface, state: State) -> dict[str, PathLosses]:
        """The straight line from the other net with its units in the present one's order, as it is and repaired."""
        other = measurement.fresh_training().net
        other.eval().load_state_dict(state)
        inputs = measurement.batches[0].inputs
        permuted = align(other, measurement.training.net, inputs=inputs, method=self.align).state
        ends = point_in(surface, permuted), surface.origin
        return {
            "aligned": path_losses(surface, line(*ends), num_points=self.curve_points),
            "repaired": repaired_line(surface, *ends, num_points=self.curve_points),
        }

    def _curve(self, measurement: Measurement, surface: LossSurface, start: Tensor) -> Curve:
        """The fitted curve; one that is finished is read from `scratch`."""
        file = measurement.scratch / "curve.npz"
        if not file.exists():
            straight = bezier(evenly_spaced(start, surface.origin, self.num_bends + 2))
            curve = fit_curve(
                connecting_surface(measurement, self.data_subset_batches),
                straight,
                steps=self.opt_steps,
                lr=self.lr,
                max_seconds=self.max_seconds,
                generator=measurement.generator("bends"),
                checkpointing=Checkpointing(measurement.scratch / "curve.partial.npz"),
            )
            curve.save(file)
        curve = Curve.load(file)
        return replace(curve, controls=curve.controls.to(surface.origin))


def connecting_surface(measurement: Measurement, num_batches: int | None = None) -> LossSurface:
    """The task's loss over the first `num_batches` evaluation batches (None: all), for points between nets.

    Running statistics of two nets say nothing of a net between them: where there is batch norm they are taken anew at each point.
    """
    net, batches = measurement.training.net, measurement.batches[:num_batches]
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats for module in net.modules()):
        return LossSurface(net, measurement.task.loss, batches, dtype=measurement.dtype, batch_norm="recompute")
    if len(batches) == len(measurement.batches):
        return measurement.surface
    return LossSurface(net, measurement.task.loss, batches, dtype=measurement.dtype)


def numbers_of(paths: Mapping[str, PathLosses]) -> dict[str, float]:
    """What each path says in numbers, under its name, and the losses of the two nets."""
    found = {"start_loss": float(paths["linear"].losses[0]), "end_loss": float(paths["linear"].losses[-1])}
    for name, path in paths.items():
        found |= {f"{name}_barrier": path.barrier, f"{name}_highest_loss": path.highest, f"{name}_mean_loss": path.mean}
        found |= {f"{name}_length": float(path.lengths[-1])}
    return found


def _picture(path: Path, straight: PathLosses, fitted: PathLosses, title: str) -> None:
    from loss_landscape.plot import plot_mode_curve  # imports matplotlib

    plot_mode_curve(path, straight, fitted=fitted, title=title)
