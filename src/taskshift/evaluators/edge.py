"""How sharp is the place that a step leaves, and how near is that to the edge of stability?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from loss_landscape import eigenpairs
from taskshift.evaluators.stability import THRESHOLD, TO_THRESHOLD, preconditioned_sharpness, stability
from taskshift.evaluators.watcher import WatchedStep, Watcher
from taskshift.quantities import Column, Quantity

CURVATURE = "sharpness along training"

QUANTITIES = (
    Quantity(
        "sharpness",
        "largest λ of the Hessian over the evaluation data",
        "loss / θ²",
        "Cohen et al. 2021; `tolerance`",
        panel=CURVATURE,
        label="largest λ, evaluation data",
        error="sharpness_residual",
        columns=(Column("sharpness\nin training", key="edge_sharpness"),),
    ),
    Quantity("sharpness_residual", "‖Hv − λv‖ of its unit vector v: no further from λ is an eigenvalue", "loss / θ²"),
    Quantity(
        "batch_sharpness",
        "gᵀHg / ‖g‖², g and H the gradient and Hessian of the step's own batch",
        "loss / θ²",
        "Andreyev and Beneventano 2024",
        panel=CURVATURE,
        label="gᵀHg / ‖g‖², the step's batch",
    ),
    Quantity("lr_times_sharpness", "η · `sharpness`, η the step's learning rate", "1", panel="η · sharpness"),
    Quantity("stability_threshold", THRESHOLD, "loss / θ²", "Cohen et al. 2021, 2022"),
    Quantity("sharpness_to_threshold", TO_THRESHOLD, "ratio", "Cohen et al. 2021, 2022", panel="sharpness / threshold"),
)


class Edge(Watcher):
    """The Hessian's largest eigenvalue along training, and the curvature along the gradient of each watched step's batch.

    All is of the net before the step, in eval mode, without regularisers. Lanczos starts from the vector that it found at the
    step watched before. A step costs some ten products with the Hessian over the evaluation data, three times that for Adam.
    """

    quantities = QUANTITIES

    def __init__(self, every: int = 20, tolerance: float = 1e-2):
        super().__init__(every)
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance is {tolerance}; a relative residual lies between 0 and 1")
        self.tolerance = tolerance
        self._vector: Tensor | None = None  # the eigenvector that was found before, [P]

    def __call__(self, step: WatchedStep) -> Mapping[str, float]:
        draw, start = step.generator("edge"), self._vector
        pairs = eigenpairs(step.evaluation_hessian, 1, tolerance=self.tolerance, generator=draw, start=start)
        self._vector = pairs.vectors[:, 0] if pairs.vectors.isfinite().all() else None
        top = pairs.values[0].item()
        found = {"sharpness": top, "sharpness_residual": pairs.residuals[0].item(), "batch_sharpness": _along_gradient(step)}
        if "lr" in step.optimizer_settings:
            found["lr_times_sharpness"] = step.optimizer_settings["lr"] * top
        return found | self._stability(step, top)

    def _stability(self, step: WatchedStep, top: float) -> dict[str, float]:
        preconditioned = partial(
            preconditioned_sharpness,
            step.evaluation_surface,
            step.evaluation_hessian,
            net=step.net,
            optimizer=step.optimizer,
            tolerance=self.tolerance,
            generator=step.generator("preconditioned edge"),
        )
        return stability(step.optimizer, top=top, preconditioned=preconditioned if step.optimizer.state else None)

    def state_dict(self) -> dict[str, Any]:
        return {} if self._vector is None else {"vector": self._vector}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._vector = state.get("vector")


def _along_gradient(step: WatchedStep) -> float:
    """The curvature of the loss on the step's batch along its own gradient; NaN where there is no slope."""
    gradient = step.surface.gradient()
    along = gradient / gradient.norm()
    return (along.double() @ (step.hessian @ along).double()).item()
