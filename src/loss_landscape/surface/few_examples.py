"""The loss of a few examples, on which derivatives are judged for little."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from loss_landscape.nested import few_of, num_rows, tensors_in
from loss_landscape.objective.batch_loss import FAULTS
from loss_landscape.objective.functional_net import Parameters
from loss_landscape.objective.objective import Objective

MIN_EXAMPLES, MAX_EXAMPLES = 2, 16
MAX_BATCHES_LOOKED_AT = 64  # for an embedding's padding
ACTIVATION_BYTES = 1 << 22  # of these examples: more are taken where they cost little
MAX_PARAMETERS_IN_FLOAT64 = 1 << 24  # above, a copy in float64 is too much memory for a check

TermLoss = Callable[[Parameters], Tensor]


def loss_of_few(objective: Objective) -> TermLoss:
    """The loss of a few examples of one batch and the regulariser, unweighted, as a function of parameters.

    They are the first batch's first, or from where an embedding looks its padding up, of which it gives no derivative. Of the
    whole batch where its examples can't be told apart, or their loss is not finite.
    """
    batch, row = _telling(objective)
    fitting = ACTIVATION_BYTES * num_rows(batch) // max(objective.activation_bytes, 1)
    few = few_of(batch, max(MIN_EXAMPLES, min(MAX_EXAMPLES, fitting)), first=row)
    examples = few if _has_loss(objective, few) else batch

    def loss(parameters: Parameters) -> Tensor:
        value = objective.batch_loss(parameters, examples)
        return value if objective.regularizer is None else value + objective.penalty(parameters)

    return loss


def _telling(objective: Objective) -> tuple[Any, int]:
    """A batch and a row of it: the first one that has an embedding's padding among its ids, else the very first."""
    modules = objective.net.module.modules()
    embeddings = [module for module in modules if isinstance(module, nn.Embedding | nn.EmbeddingBag)]
    padding = {module.padding_idx for module in embeddings if module.padding_idx is not None}
    batches = (batch for _, batch in objective.weighted_batches())
    first = next(batches)
    looked_at = [first, *islice(batches, MAX_BATCHES_LOOKED_AT - 1)] if padding else []
    counts = [_rows_with(padding, batch) for batch in looked_at]
    most = max((int(count.max()) for count in counts), default=0)
    for batch, count in zip(looked_at, counts, strict=True):
        if most and int(count.max()) == most:
            return batch, int(count.argmax())
    return first, 0


def _rows_with(ids: set[int], batch: Any) -> Tensor:
    """In how many of a batch's longest tensors of integers each row has one of these, [rows]: masks may have some too."""
    integers = [t for t in tensors_in(batch) if t.dtype in (torch.int64, torch.int32) and t.dim() and len(t) == num_rows(batch)]
    sentences = [t for t in integers if t.dim() == max(other.dim() for other in integers)]  # labels are one for each
    found = [torch.isin(t.reshape(len(t), -1), torch.tensor(sorted(ids)).to(t)).any(1).long() for t in sentences]
    return torch.stack(found).sum(0) if found else torch.zeros(1, dtype=torch.long)


@torch.no_grad()
def _has_loss(objective: Objective, examples: Any) -> bool:
    try:
        return bool(torch.isfinite(objective.batch_loss({}, examples)))
    except FAULTS:
        return False
