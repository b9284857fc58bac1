"""Regression on one value a class; the values wander, and keep their order and their distance."""

from __future__ import annotations

from itertools import accumulate, pairwise

import torch

from taskshift.data.labelled_data import LabelledData
from taskshift.randomness import generator
from taskshift.shifts.classification import as_they_are
from taskshift.shifts.cumulative import Cumulative
from taskshift.shifts.losses import LabelValueMSE
from taskshift.shifts.task import Task, TaskShift


class DriftingValues(TaskShift):
    """Examples of class c have the value v_c, which output c learns: the loss is the mean of (output[label] - v_label)².

    v_c starts at c. An update adds N(0, `drift_std_dev`²) to each; neighbours closer than `min_gap` push each other
    apart, each by ½ (overlap + min_gap) · `repulsion_strength` a sweep, for up to 4 sweeps a class; what is still too
    close is sorted and pushed up to the gap; what leaves `value_bounds` is squeezed and shifted into them, gaps kept.
    Task k has had k + 1 updates, or k with `shift_first_task=False`. The targets in a batch stay the labels; the
    loss holds the values. There is no accuracy.
    """

    def __init__(
        self,
        seed: int,
        drift_std_dev: float = 0.05,
        repulsion_strength: float = 0.05,
        min_gap: float = 0.2,
        value_bounds: tuple[float, float] = (-20.0, 20.0),
        shift_first_task: bool = True,
    ):
        for name, value in (("drift_std_dev", drift_std_dev), ("repulsion_strength", repulsion_strength), ("min_gap", min_gap)):
            if not value >= 0:
                raise ValueError(f"{name} is {value}; it must be 0 or more")
        low, high = value_bounds
        if not low < high:
            raise ValueError(f"value_bounds is [{low}, {high}]; the first must be smaller than the second")
        self.seed, self.drift_std_dev, self.repulsion_strength = seed, drift_std_dev, repulsion_strength
        self.min_gap, self.value_bounds, self.shift_first_task = min_gap, (low, high), shift_first_task
        self._drifts: dict[int, Cumulative[list[float]]] = {}  # one for each number of classes, so in a run one

    def task(self, data: LabelledData, index: int) -> Task:
        values = torch.tensor(self.values(data, index), dtype=data.inputs.dtype, device=data.device)
        return Task(index, data.train, data.test, as_they_are, LabelValueMSE(values), validation=data.validation)

    def num_tasks(self, data: LabelledData) -> None:
        self._refuse_crowd(data)

    def values(self, data: LabelledData, index: int) -> list[float]:
        """The value of every class in task `index`, ascending."""
        self._refuse_crowd(data)
        size = data.num_classes
        if size not in self._drifts:
            first = into_bounds([float(label) for label in range(size)], self.min_gap, self.value_bounds)
            self._drifts[size] = Cumulative(first, self._update)
        return self._drifts[size](index + self.shift_first_task)

    def _update(self, values: list[float], number: int) -> list[float]:
        noise = torch.randn(len(values), generator=generator(self.seed, "drifting_values", number), dtype=torch.float64)
        moved = [value + self.drift_std_dev * step for value, step in zip(values, noise.tolist(), strict=True)]
        apart = pushed_apart(moved, self.min_gap, self.repulsion_strength)
        return into_bounds(spaced(apart, self.min_gap), self.min_gap, self.value_bounds)

    def _refuse_crowd(self, data: LabelledData) -> None:
        low, high = self.value_bounds
        if (data.num_classes - 1) * self.min_gap > high - low:
            raise ValueError(
                f"min_gap is {self.min_gap}, so the {data.num_classes} classes of {data.name} do not fit into "
                f"value_bounds [{low}, {high}]; make the gap smaller or the bounds wider"
            )


def pushed_apart(values: list[float], min_gap: float, strength: float) -> list[float]:
    """Neighbours closer than `min_gap` moved apart, a little a sweep, until none is or 4 sweeps a value are over."""
    values = list(values)
    for _ in range(4 * len(values)):
        settled = True
        for left in range(len(values) - 1):
            overlap = values[left] + min_gap - values[left + 1]
            if overlap >= 0:
                settled = False
                shift = 0.5 * (overlap + min_gap) * strength
                values[left] -= shift
                values[left + 1] += shift
        if settled:
            break
    return values


def spaced(values: list[float], min_gap: float) -> list[float]:
    """Sorted, then each pushed up to `min_gap` above the one before it where it is closer."""
    result = sorted(values)
    for left in range(len(result) - 1):
        result[left + 1] = max(result[left + 1], result[left] + min_gap)
    return result


def into_bounds(values: list[float], min_gap: float, bounds: tuple[float, float]) -> list[float]:
    """Squeezed about the middle where they are too wide, by what the gaps have beyond `min_gap`, then shifted inside."""
    low, high = bounds
    if values[-1] - values[0] > high - low:
        spare = [right - left - min_gap for left, right in pairwise(values)]
        room = high - low - min_gap * len(spare)
        gaps = [min_gap + extra * room / sum(spare) for extra in spare]
        values = list(accumulate(gaps, initial=(values[0] + values[-1]) / 2 - (high - low) / 2))
    shift = max(low - values[0], 0.0) - max(values[-1] - high, 0.0)
    return [value + shift for value in values]
