"""How much each batch weighs in the loss over all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from loss_landscape.arguments import as_number
from loss_landscape.objective.batch_loss import BatchLoss, explained
from loss_landscape.objective.batch_pairs import denominators_by_pairs
from loss_landscape.objective.batches import Batches
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

    A mean over uneven batches is the mean over their examples only if each weighs what its own mean divides by. Where the loss
    does not say what that is, pairs of batches do: the loss of both together lies between theirs as their weights have it.
    """
    if given is not None:
        return BatchWeights(shares([as_number(given(batch), "batch_weight(batch)") for batch in batches]), "batch_weight", given)
    if loss.criterion is not None and loss.criterion.reduction == "sum":
        return BatchWeights(tuple(1.0 for _ in batches), "sum over all data")
    found = [_denominator(loss, parameters, batch, number) for number, batch in enumerate(batches)]
    known = [denominator for denominator in found if denominator is not None]
    if len(known) == len(found):
        return BatchWeights(shares(known), "the criterion's own denominator")
    if len(found) == 1:
        return BatchWeights((1.0,), "a single batch")
    denominators, rule = denominators_by_pairs(loss, batches, parameters)
    return BatchWeights((1.0,) * len(found) if denominators is None else shares(denominators), rule)


def shares(weights: Sequence[float]) -> tuple[float, ...]:
    """The weights over their sum."""
    total = math.fsum(weights)
    if total == 0:
        raise ValueError("no example counts in the loss: each batch weighs 0 (are all targets ignored?)")
    if not math.isfinite(total) or total <= 0 or min(weights) < 0:
        raise ValueError(f"batch weights must be finite and ≥ 0, got {list(weights[:8])}")
    return tuple(weight / total for weight in weights)


def _denominator(loss: BatchLoss, parameters: Parameters, batch: Any, number: int) -> float | None:
    if loss.criterion is None:
        return None
    with explained("the net or loss_fn", number, batch=batch):
        return loss.criterion.denominator(loss.outputs(parameters, batch), batch[1])
