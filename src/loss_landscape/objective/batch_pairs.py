"""What the losses of batches divide by, found from the loss of two batches together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loss_landscape.nested import form_of, num_rows, tensors_in, with_entries
from loss_landscape.objective.batch_loss import FAULTS, BatchLoss, explained
from loss_landscape.objective.batches import Batches
from loss_landscape.objective.functional_net import Parameters, undisturbed
from loss_landscape.objective.used_parameters import elsewhere

EXACT, ROUNDED = 1e-8, 2e-5  # how well losses agree, relatively, in float64 and where a net was run again in float32
TELLING = 1e-5  # relative distance of two losses below which the one of both together does not tell their weights
SAME = 1e-6  # how well weights agree that two points give


@dataclass(frozen=True)
class _Pair:
    """The losses of the first batch, of another, and of both together, at one point; how many examples the two have."""

    first: float
    second: float
    together: float
    counts: tuple[int, int]

    def is_mean(self, tolerance: float) -> bool:
        """Whether the loss of both is the mean of theirs by examples; where it is no number nothing speaks against that."""
        one, two = self.counts
        return self._is((one * self.first + two * self.second) / (one + two), tolerance) if one and two else False

    def is_sum(self, tolerance: float) -> bool:
        return self._is(self.first + self.second, tolerance)

    def ratio(self) -> float | None:
        """What the second loss divides by over what the first does; None where that can't be told."""
        if math.isnan(self.second) and self.together == self.first:
            return 0.0  # nothing counts in it
        distance = self.first - self.second
        if not math.isfinite(distance) or abs(distance) <= TELLING * abs(self.first):
            return None
        share = (self.together - self.second) / distance
        return (1 - share) / share if 0 < share <= 1 + SAME else None

    def _is(self, expected: float, tolerance: float) -> bool:
        return not math.isfinite(self.together) or math.isclose(
            self.together, expected, rel_tol=tolerance, abs_tol=1e-6 * tolerance
        )


def denominators_by_pairs(loss: BatchLoss, batches: Batches, parameters: Parameters) -> tuple[list[float] | None, str]:
    """What each batch's loss divides by, up to a common factor (None: it is a sum), and in words how that is known.

    Looked at a little way from `parameters`, where a head that begins at 0 does not make all losses alike. Raises ValueError
    where the loss of two batches together can't be had, or is no mean of theirs.
    """
    tolerance = EXACT if loss.criterion is not None and loss.criterion.is_exact else ROUNDED
    pairs = _pairs(loss, batches, _displaced(parameters, seed=0))
    if all(pair.is_mean(tolerance) for pair in pairs):
        counts = [pairs[0].counts[0], *(pair.counts[1] for pair in pairs)]
        return [float(count) for count in counts], "examples: the loss is their mean, by pairs of batches"
    if all(pair.is_sum(tolerance) for pair in pairs):
        return None, "sum over all data, by pairs of batches"
    if tolerance == EXACT:
        ratios = [pair.ratio() for pair in pairs]
        there = [pair.ratio() for pair in _pairs(loss, batches, _displaced(parameters, seed=1))]
        if all(
            one is not None and two is not None and math.isclose(one, two, rel_tol=SAME)
            for one, two in zip(ratios, there, strict=True)
        ):
            return [1.0, *(ratio for ratio in ratios if ratio is not None)], "what the loss divides by, from pairs of batches"
    if not all(min(pair.counts) for pair in pairs):
        raise _unknown("the examples of a batch can't be told apart")
    raise _unknown("the loss of two batches together is not the mean of theirs by examples")


def _displaced(parameters: Parameters, seed: int) -> Parameters:
    return {name: elsewhere(parameter.detach(), seed) for name, parameter in parameters.items()}


def _unknown(why: str) -> ValueError:
    return ValueError(
        f"{why}, so how batches weigh is unknown; give batch_weight=f(batch), what the loss of that batch divides by"
    )


def _pairs(loss: BatchLoss, batches: Batches, parameters: Parameters) -> list[_Pair]:
    found = list[_Pair]()
    one: _Seen | None = None
    for number, batch in enumerate(batches):
        with explained("the net or its loss", number, batch=batch):
            seen = _Seen.of(loss, parameters, batch)
        if one is None:
            one = seen
            continue
        try:
            together = one.loss_with(seen, loss, parameters)
        except torch.OutOfMemoryError:
            raise
        except FAULTS as error:
            raise _unknown(f"two batches can't be put into one to compare their losses ({_first_line(error)})") from error
        found.append(_Pair(one.value, seen.value, together, (one.count, seen.count)))
    return found


@dataclass(frozen=True)
class _Seen:
    """A batch, what the net gives for it where the loss is one of outputs, its loss, and how many examples it has."""

    batch: Any
    outputs: Any
    value: float

    @classmethod
    def of(cls, loss: BatchLoss, parameters: Parameters, batch: Any) -> _Seen:
        with undisturbed(loss.net.device):
            if loss.criterion is None:
                return cls(batch, None, float(loss(parameters, batch)))
            outputs = loss.outputs(parameters, batch)
            return cls(batch, outputs, float(loss.criterion(outputs, batch[1])))

    @property
    def count(self) -> int:
        """The first dimension that all tensors of the targets have in common, of the whole batch without targets; else 0."""
        return num_rows(self.batch if self.outputs is None else self.batch[1])

    def loss_with(self, other: _Seen, loss: BatchLoss, parameters: Parameters) -> float:
        """The loss of both batches in one."""
        with undisturbed(loss.net.device):
            if loss.criterion is not None and _fit(self.outputs, other.outputs):
                joined = _joined(self.outputs, other.outputs)
                return float(loss.criterion(joined, _joined(self.batch[1], other.batch[1])))
            return float(loss(parameters, _joined(self.batch, other.batch)))


def _joined(first: Any, second: Any) -> Any:
    """Two batches in one, their tensors one behind the other; ValueError where they have not the same parts."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.cat([first, second])
    if isinstance(first, Mapping) and isinstance(second, Mapping) and first.keys() == second.keys():
        return with_entries(first, {key: _joined(value, second[key]) for key, value in first.items()})
    if isinstance(first, tuple) and hasattr(first, "_fields") and type(first) is type(second):
        return type(first)(*(_joined(*pair) for pair in zip(first, second, strict=True)))
    if isinstance(first, tuple | list) and type(first) is type(second) and len(first) == len(second):
        return type(first)(_joined(*pair) for pair in zip(first, second, strict=True))
    if form_of(first) == form_of(second):
        return first
    raise ValueError(f"{type(first).__name__} and {type(second).__name__} have no rows to be put together")


def _fit(first: Any, second: Any) -> bool:
    """Whether outputs can be put together row by row, so that the net need not run again."""
    pairs = list(zip(tensors_in(first), tensors_in(second), strict=False))
    return bool(pairs) and all(a.dim() > 0 and a.shape[1:] == b.shape[1:] for a, b in pairs)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
