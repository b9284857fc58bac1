"""How much each batch weighs in the loss over all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loss_landscape.nested import rows_of, tensors_in
from loss_landscape.objective.batch_loss import BatchLoss
from loss_landscape.objective.batches import Batches
from loss_landscape.objective.criterion import agrees
from loss_landscape.objective.functional_net import Parameters


@dataclass(frozen=True)
class BatchWeights:
    """A weight for each batch, and in words where they come from; `given(batch)` is the user's own."""

    values: tuple[float, ...]
    rule: str
    given: Callable[[Any], float] | None = None


@torch.no_grad()
def batch_weights(
    loss: BatchLoss, batches: Batches, parameters: Parameters, given: Callable[[Any], float] | None
) -> BatchWeights:
    """Each batch's weight in the loss at `parameters`.

    A mean over uneven batches is the mean over their examples only if each weighs what its own mean divides by.
    """
    if given is not None:
        return BatchWeights(shares([float(given(batch)) for batch in batches]), "batch_weight", given)
    if loss.criterion is not None and loss.criterion.reduction == "sum":
        return BatchWeights(tuple(1.0 for _ in batches), "sum over all data")
    found = [_denominator(loss, parameters, batch) for batch in batches]
    known = [denominator for denominator in found if denominator is not None]
    if len(known) == len(found):
        return BatchWeights(shares(known), "the criterion's own denominator")
    if len(found) == 1:
        return BatchWeights((1.0,), "a single batch")
    examples = [_examples(loss, parameters, batch) for batch in batches]
    return BatchWeights(shares(examples), "examples: the loss is their mean, by its halves")


def shares(weights: Sequence[float]) -> tuple[float, ...]:
    """The weights over their sum."""
    total = math.fsum(weights)
    if total == 0:
        raise ValueError("no example counts in the loss: each batch weighs 0 (are all targets ignored?)")
    if not math.isfinite(total) or total <= 0 or min(weights) < 0:
        raise ValueError(f"batch weights must be finite and ≥ 0, got {list(weights[:8])}")
    return tuple(weight / total for weight in weights)


def _denominator(loss: BatchLoss, parameters: Parameters, batch: Any) -> float | None:
    return None if loss.criterion is None else loss.criterion.denominator(loss.outputs(parameters, batch), batch[1])


def _examples(loss: BatchLoss, parameters: Parameters, batch: Any) -> float:
    """The examples of a batch, after making sure that its loss is their mean."""
    lengths = {len(t) if t.dim() else 0 for t in tensors_in(batch)}
    count = lengths.pop() if len(lengths) == 1 else 0
    if count and _is_mean_of_halves(loss, parameters, batch, count):
        return float(count)
    raise ValueError(
        "the loss of a batch is not the mean over its examples, or its examples can't be told apart, so how batches weigh is "
        "unknown; give batch_weight=f(batch), what the loss of that batch divides by"
    )


def _is_mean_of_halves(loss: BatchLoss, parameters: Parameters, batch: Any, count: int) -> bool:
    if loss.criterion is not None:
        outputs = loss.outputs(parameters, batch)
        return isinstance(outputs, Tensor) and loss.criterion.is_mean_over_examples(outputs, batch[1])
    if count < 2:
        return True
    half = count // 2
    parts = [rows_of(batch, part) for part in (slice(0, half), slice(half, count))]
    first, second, whole = (loss(parameters, part).item() for part in (*parts, batch))
    return agrees(whole, (half * first + (count - half) * second) / count)
