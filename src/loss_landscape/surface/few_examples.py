"""The loss of a few examples, on which derivatives are judged for little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from loss_landscape.nested import few_of, num_rows
from loss_landscape.objective.batch_loss import FAULTS
from loss_landscape.objective.functional_net import Parameters
from loss_landscape.objective.objective import Objective

MIN_EXAMPLES, MAX_EXAMPLES = 2, 16
ACTIVATION_BYTES = 1 << 22  # of these examples: more are taken where they cost little
MAX_PARAMETERS_IN_FLOAT64 = 1 << 24  # above, a copy in float64 is too much memory for a check

TermLoss = Callable[[Parameters], Tensor]


def loss_of_few(objective: Objective) -> TermLoss:
    """The loss of the first batch's first examples and the regulariser, unweighted, as a function of parameters.

    Of the whole first batch where its examples can't be told apart, or their loss is not finite.
    """
    _, batch = next(objective.weighted_batches())
    fitting = ACTIVATION_BYTES * num_rows(batch) // max(objective.activation_bytes, 1)
    few = few_of(batch, max(MIN_EXAMPLES, min(MAX_EXAMPLES, fitting)))
    examples = few if _has_loss(objective, few) else batch

    def loss(parameters: Parameters) -> Tensor:
        value = objective.batch_loss(parameters, examples)
        return value if objective.regularizer is None else value + objective.penalty(parameters)

    return loss


@torch.no_grad()
def _has_loss(objective: Objective, examples: Any) -> bool:
    try:
        return bool(torch.isfinite(objective.batch_loss({}, examples)))
    except FAULTS:
        return False
