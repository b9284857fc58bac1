"""Which units of a layer still do something: dead, dormant and saturated ones.

A unit is a column of a linear layer's output, or a channel of a convolution's: a channel is one unit, over all its positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Activity:
    """What a layer's units [U] did over some examples."""

    mean_abs: Tensor  # [U], E|h| over examples and positions, float64
    ever_active: Tensor  # [U], bool: not zero at one example and position at least
    always_saturated: Tensor | None  # [U], bool; None where the activation has no asymptotes to sit on
    num_examples: int

    def __or__(self, other: Activity) -> Activity:
        """The activity over the examples of both."""
        n, m = self.num_examples, other.num_examples
        saturated = None if self.always_saturated is None else self.always_saturated & other.always_saturated
        return Activity(
            (n * self.mean_abs + m * other.mean_abs) / (n + m), self.ever_active | other.ever_active, saturated, n + m
        )


def activity(outputs: Tensor, axis: int, saturated: Tensor | None = None) -> Activity:
    """What the units along dimension `axis` of `outputs` [B, …] did; `saturated` says so of every entry."""
    per_unit = outputs.movedim(axis, 0).flatten(1)  # [U, everything else]
    sat = None if saturated is None else saturated.movedim(axis, 0).flatten(1).all(dim=1)
    return Activity(per_unit.abs().mean(dim=1, dtype=torch.float64), (per_unit != 0).any(dim=1), sat, len(outputs))


def is_saturated(function: str, outputs: Tensor, epsilon: float) -> Tensor | None:
    """Of each output of tanh or sigmoid: is it within `epsilon` of an asymptote? None for an activation that has not two."""
    if function == "tanh":
        return outputs.abs() > 1 - epsilon
    if function == "sigmoid":
        return (outputs < epsilon) | (outputs > 1 - epsilon)
    return None


def dead(layer: Activity) -> Tensor:
    """[U] bool: zero on every example, at every position."""
    return ~layer.ever_active


def dormant(layer: Activity, tau: float = 0.025) -> Tensor:
    """[U] bool: E|hᵢ| / mean_k E|h_k| ≤ tau (Sokar et al. 2023); in a layer that is silent altogether every unit is."""
    return layer.mean_abs <= tau * layer.mean_abs.mean()
