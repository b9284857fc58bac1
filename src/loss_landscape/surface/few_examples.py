"""The loss of a few examples, on which derivatives are judged for little."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from loss_landscape.nested import few_of, num_rows, tensors_in
from loss_landscape.objective.batch_loss import FAULTS
from loss_landscape.objective.functional_net import Parameters
from loss_landscape.objective.objective import Objective

MIN_EXAMPLES, MAX_EXAMPLES = 2, 16
MAX_BATCHES_LOOKED_AT = 64  # for an embedding's padding
ACTIVATION_BYTES = 1 << 22  # of these examples: more are taken where they cost little
MAX_PARAMETERS_IN_FLOAT64 = 1 << 24  # above, a copy in float64 is too much memory for a check

aten = torch.ops.aten
EMBEDDINGS = {aten.embedding.default: 2, aten._embedding_bag.default: 8, aten._embedding_bag_forward_only.default: 8}
"""Operation → the place of `padding_idx` among its arguments, below 0 where there is none."""

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
    batches = (batch for _, batch in objective.weighted_batches())
    first = next(batches)
    padding = _padding(objective, first)
    looked_at = [first, *islice(batches, MAX_BATCHES_LOOKED_AT - 1)] if padding else []
    counts = [_rows_with(padding, batch) for batch in looked_at]
    most = max((int(count.max()) for count in counts), default=0)
    for batch, count in zip(looked_at, counts, strict=True):
        if most and int(count.max()) == most:
            return batch, int(count.argmax())
    return first, 0


def _padding(objective: Objective, batch: Any) -> set[int]:
    """The ids that embeddings take for padding: the net's own, and those that are called as functions."""
    embeddings = [module for module in objective.net.module.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)]
    with _PaddingWatch() as watch:
        if not _has_loss(objective, few_of(batch, MIN_EXAMPLES)):
            _has_loss(objective, batch)
    return watch.ids | {module.padding_idx for module in embeddings if module.padding_idx is not None}


class _PaddingWatch(TorchDispatchMode):
    """A context that notes the ids that the embeddings inside take for padding."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in EMBEDDINGS:
            self.ids.update(padding for padding in args[EMBEDDINGS[function] :][:1] if padding >= 0)
        return function(*args, **(kwargs or {}))


def _rows_with(ids: set[int], batch: Any) -> Tensor:
    """In how many of a batch's longest tensors of integers each row has one of these, [rows]: masks may have some too.

    A batch whose tensors have no rows in common is one row.
    """
    integers = [t for t in tensors_in(batch) if t.dtype in (torch.int64, torch.int32) and t.numel()]
    sentences = [t for t in integers if t.dim() == max(other.dim() for other in integers)]  # labels are one for each
    rows, wanted = num_rows(batch) or 1, sorted(ids)
    found = [torch.isin(t.reshape(rows, -1), torch.tensor(wanted).to(t)).any(1).long() for t in sentences]
    return torch.stack(found).sum(0) if found else torch.zeros(1, dtype=torch.long)


@torch.no_grad()
def _has_loss(objective: Objective, examples: Any) -> bool:
    try:
        return bool(torch.isfinite(objective.batch_loss({}, examples)))
    except FAULTS:
        return False
