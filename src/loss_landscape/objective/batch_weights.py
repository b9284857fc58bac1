"""How much each batch weighs in the loss over all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loss_landscape.nested import map_tensors, tensors_in
from loss_landscape.objective.criterion import agrees

if TYPE_CHECKING:
    from loss_landscape.surface.surface import LossSurface


@torch.no_grad()
def batch_weights(surface: LossSurface, batch_weight: Callable[[Any], float] | None) -> tuple[list[float], str]:
    """Each batch's weight in the surface's loss, and in words where it comes from.

    A mean over uneven batches is the mean over their examples only if each weighs what its own mean divides by.
    """
    if batch_weight is not None:
        return shares([float(batch_weight(batch)) for batch in surface.batches]), "batch_weight"
    if surface.criterion is not None and surface.criterion.reduction == "sum":
        return [1.0 for _ in surface.batches], "sum over all data"
    found = [_denominator(surface, batch) for batch in surface.batches]
    if all(denominator is not None for denominator in found):
        return shares(found), "the criterion's own denominator"
    if len(found) == 1:
        return [1.0], "a single batch"
    return shares([_examples(surface, batch) for batch in surface.batches]), "examples: the loss is their mean, by its halves"


def shares(weights: Sequence[float]) -> list[float]:
    """The weights over their sum."""
    total = math.fsum(weights)
    if not math.isfinite(total) or total <= 0 or min(weights) < 0:
        raise ValueError(f"batch weights must be finite, ≥ 0 and not all 0, got {list(weights[:8])}")
    return [weight / total for weight in weights]


def _denominator(surface: LossSurface, batch: Any) -> float | None:
    return (
        None if surface.criterion is None else surface.criterion.denominator(surface.outputs(surface.leaves(), batch), batch[1])
    )


def _examples(surface: LossSurface, batch: Any) -> float:
    """The examples of a batch, after making sure that its loss is their mean."""
    lengths = {len(t) if t.dim() else 0 for t in tensors_in(batch)}
    count = lengths.pop() if len(lengths) == 1 else 0
    if count and _is_mean_of_halves(surface, batch, count):
        return float(count)
    raise ValueError(
        "the loss of a batch is not the mean over its examples, or its examples can't be told apart, so how batches weigh is "
        "unknown; give batch_weight=f(batch), what the loss of that batch divides by"
    )


def _is_mean_of_halves(surface: LossSurface, batch: Any, count: int) -> bool:
    if surface.criterion is not None:
        outputs = surface.outputs(surface.leaves(), batch)
        return isinstance(outputs, Tensor) and surface.criterion.is_mean_over_examples(outputs, batch[1])
    if count < 2:
        return True
    half = count // 2
    parts = [map_tensors(lambda t, part=part: t[part], batch) for part in (slice(0, half), slice(half, count))]
    first, second, whole = (surface.batch_loss(surface.leaves(), part).item() for part in (*parts, batch))
    return agrees(whole, (half * first + (count - half) * second) / count)
