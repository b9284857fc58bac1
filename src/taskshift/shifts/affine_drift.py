"""How an affine map wanders from task to task: its distance from the identity after so many updates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from taskshift.randomness import generator
from taskshift.shifts.cumulative import Cumulative

Offset = Callable[[int], Tensor]
"""Number of updates → θ - [I|0], [2, 3] in float64."""


@dataclass(frozen=True)
class LinearDrift:
    """Always on in one random direction: start + updates · max_drift · direction, the direction of Frobenius norm 1."""

    max_drift: float = 0.05  # the length of a step

    def offset(self, seed: int, start: Tensor) -> Offset:
        direction = _uniform(1.0, seed, "direction")
        direction = direction / torch.linalg.matrix_norm(direction)
        return lambda updates: start + updates * self.max_drift * direction


@dataclass(frozen=True)
class RandomWalkDrift:
    """A step of N(0, drift_std_dev²) in every entry at each update, from the start on."""

    drift_std_dev: float = 0.05

    def __post_init__(self) -> None:
        if not self.drift_std_dev >= 0:
            raise ValueError(f"drift_std_dev is {self.drift_std_dev}; it must be 0 or more")

    def offset(self, seed: int, start: Tensor) -> Offset:
        return Cumulative(start, lambda state, number: state + self.drift_std_dev * _normal(seed, number))


@dataclass(frozen=True)
class SinusoidalDrift:
    """amplitude · sin(frequency · updates) in all six entries; the random start is not used. The period is 2π / frequency."""

    amplitude: float = 0.2
    frequency: float = 0.1  # radians an update

    def offset(self, seed: int, start: Tensor) -> Offset:
        def at(updates: int) -> Tensor:
            angle = torch.tensor(self.frequency * updates, dtype=torch.float64)
            return torch.full_like(start, self.amplitude) * angle.sin()

        return at


def random_start(seed: int, spread: float) -> Tensor:
    """U(-spread, spread) in every entry, [2, 3]."""
    return _uniform(spread, seed, "start")


def reflected(offset: Tensor, limit: float) -> Tensor:
    """Every entry x folded into [-limit, limit], as a ball bounces between two walls.

    limit - |(x + limit) mod (4 limit) - 2 limit|: x itself between the walls.
    """
    return limit - (torch.remainder(offset + limit, 4 * limit) - 2 * limit).abs()


def _uniform(spread: float, seed: int, purpose: str) -> Tensor:
    rng = generator(seed, "continuous_input_deformation", purpose)
    return spread * (2 * torch.rand(2, 3, generator=rng, dtype=torch.float64) - 1)


def _normal(seed: int, number: int) -> Tensor:
    rng = generator(seed, "continuous_input_deformation", "step", number)
    return torch.randn(2, 3, generator=rng, dtype=torch.float64)
