"""The rule that does what one of torch's optimizers does."""

from __future__ import annotations

import torch
from torch.optim import Optimizer

from taskshift.learners.rule import Rule
from taskshift.learners.rules.adam import Adam
from taskshift.learners.rules.rmsprop import RMSprop
from taskshift.learners.rules.sgd import SGD

RULES = {
    torch.optim.SGD: SGD.of,
    torch.optim.Adam: Adam.of,
    torch.optim.AdamW: Adam.of,
    torch.optim.RMSprop: RMSprop.of,
}


def pure_rule(optimizer: Optimizer) -> Rule | None:
    """The pure rule that steps as this optimizer does, or None where there is none.

    How torch would carry the step out (`foreach`, `fused`, `capturable`, `differentiable`) is of no consequence to it.
    """
    make = RULES.get(type(optimizer))
    return make(optimizer.param_groups[0]) if make is not None and len(optimizer.param_groups) == 1 else None
