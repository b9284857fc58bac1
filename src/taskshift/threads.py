"""How many threads torch takes where nobody says: by the net's shapes and the cores, never by the load, so that bits stay."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from taskshift.evaluation import eval_mode

WORTH_THREADS = 2e8
"""Floating-point operations of a batch's forward pass from which several threads pay: tens of milliseconds of one core.

Below, threads that wait for each other at the end of every small operation win a tenth on an idle machine, and lose forty times
that where other processes take the cores.
"""

OF_ITSELF = torch.get_num_threads()
"""As many as torch takes by itself, from the cores and OMP_NUM_THREADS; asked before any run of this process sets another."""


def fitting_threads(net: nn.Module, example: Tensor, batch_size: int) -> int:
    """One thread for a net whose batches are small, else as many as torch takes by itself; `example` [1, ...] is an input."""
    if OF_ITSELF == 1 or example.device.type == "cuda":
        return OF_ITSELF
    with eval_mode(net), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(example)
    return OF_ITSELF if counter.get_total_flops() * batch_size >= WORTH_THREADS else 1
