"""Whether a net's own `eval` leaves its loss as it is."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from loss_landscape.objective.batch_loss import BatchLoss
from loss_landscape.objective.functional_net import FunctionalNet, undisturbed
from loss_landscape.objective.private_copy import private_clone, sets_modes_itself
from loss_landscape.objective.rehearsal import NotEvaluableError

SAME_LOSS = 1e-4


@torch.no_grad()
def require_same_loss_in_own_eval_mode(model: nn.Module, losses: BatchLoss, batch: Any) -> None:
    """Raise NotEvaluableError where the net's own `train` and `eval` change the loss by more than the modes that they set.

    Such a method may merge weights, which changes no loss, or swap in others, and then there is no telling which are meant.
    """
    if not sets_modes_itself(model) or losses.net.rules.outside:
        return
    clone = private_clone(model, own_memory=True)
    clone.eval()
    net = FunctionalNet.of_clone(clone, losses.net.dtype)
    net = replace(net, rules=replace(losses.net.rules, copied=frozenset(net.parameters)))
    values = []
    for each in (losses, losses.with_net(net)):
        with undisturbed(net.device):
            values.append(float(each(each.net.parameters, batch)))
    here, there = values
    if math.isfinite(here) and not math.isclose(here, there, rel_tol=SAME_LOSS, abs_tol=1e-6):
        raise NotEvaluableError(
            f"the net's own train() and eval() change more than its mode: its loss is {here:.6g} with the one and {there:.6g} "
            "with the other; give the net that is meant without that method, its weights as they are to be evaluated"
        )
