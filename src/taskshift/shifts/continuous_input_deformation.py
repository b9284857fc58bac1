"""The images are turned, stretched, sheared and moved a little further with every task."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from taskshift.data.labelled_data import LabelledData
from taskshift.shifts.affine_drift import LinearDrift, RandomWalkDrift, SinusoidalDrift, random_start, reflected
from taskshift.shifts.classification import as_they_are, classification_task
from taskshift.shifts.task import Batch, Task, TaskShift


class ContinuousInputDeformation(TaskShift):
    """Task k shows every image through one affine map θ_k = [I|0] + δ_k: the pixel at p is taken from θ_k (p, 1).

    Coordinates run over [-1, 1] in both directions; sampling is bilinear, and black outside the frame. δ wanders as
    `drift_mode` says, with that block's settings. With `bounded` every entry of δ is reflected at ±`limit`, so that the
    singular values of the linear part stay within 1 ± 2·limit, the images stay in view for ever, and no task is harder
    only because there is less to see. Unbounded, a walk of 0.1 a task leaves a quarter of the frame in view by task 100.

    Task k has had k + 1 updates from a random start, U(-0.1, 0.1) in every entry. With `shift_first_task=False` it has
    had k from the undistorted image, which is what task 0 shows.
    """

    def __init__(
        self,
        seed: int,
        drift_mode: Literal["linear", "random_walk", "sinusoidal"] = "random_walk",
        linear: LinearDrift = LinearDrift(),  # noqa: B008 (frozen)
        random_walk: RandomWalkDrift = RandomWalkDrift(),  # noqa: B008
        sinusoidal: SinusoidalDrift = SinusoidalDrift(),  # noqa: B008
        bounded: bool = True,
        limit: float = 0.2,
        shift_first_task: bool = True,
    ):
        drifts = {"linear": linear, "random_walk": random_walk, "sinusoidal": sinusoidal}
        if drift_mode not in drifts:
            raise ValueError(f"drift_mode is {drift_mode!r}; it must be one of {', '.join(drifts)}")
        if not 0 < limit < 0.5:
            raise ValueError(f"limit is {limit}; it must be above 0, and below 0.5 so that no image collapses to a line")
        self.seed, self.bounded, self.limit, self.shift_first_task = seed, bounded, limit, shift_first_task
        self._offset = drifts[drift_mode].offset(seed, random_start(seed, 0.1 if shift_first_task else 0.0))

    def task(self, data: LabelledData, index: int) -> Task:
        if data.inputs.ndim != 4:
            raise ValueError(f"{data.name} has inputs of shape {data.input_shape}; only images [C, H, W] can be deformed")
        if index == 0 and not self.shift_first_task:
            return classification_task(data, index, as_they_are)
        return classification_task(data, index, AffineView(self.theta(index), data))

    def theta(self, index: int) -> Tensor:
        """The map of task `index`, [2, 3] in float64."""
        offset = self._offset(index + self.shift_first_task)
        return torch.eye(2, 3, dtype=torch.float64) + (reflected(offset, self.limit) if self.bounded else offset)


class AffineView:
    """The view through one affine map, black outside the frame."""

    def __init__(self, theta: Tensor, data: LabelledData):
        grid = F.affine_grid(theta[None], [1, *data.input_shape], align_corners=False)
        self.grid = grid.to(data.device, data.inputs.dtype)  # [1, H, W, 2], once a task
        self.black = data.black.to(data.inputs.dtype)[:, None, None]

    def __call__(self, inputs: Tensor, targets: Tensor, indices: Tensor) -> Batch:
        grid = self.grid.expand(len(inputs), -1, -1, -1)
        lit = F.grid_sample(inputs - self.black, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return Batch(lit + self.black, targets)
