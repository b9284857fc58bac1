"""How many floating-point operations the programs need: torch's counter for the nets, the algorithm for what ours leaves out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from lla_benchmarks.nets import Problem


def counted(program: Callable[[], Any]) -> int:
    """The operations of matrix products and convolutions in `program()`, by torch's counter."""
    with FlopCounterMode(display=False) as counter:
        program()
    return counter.get_total_flops()


@torch.no_grad()
def forward(problem: Problem) -> int:
    """One forward pass over the batch."""
    return counted(lambda: problem.net(problem.inputs))


@torch.no_grad()
def first_layer(problem: Problem) -> int:
    """The layer that sees the inputs."""
    return counted(lambda: next(iter(problem.net.children()))(problem.inputs))


def affine_cell(problem: Problem, num_directions: int) -> int:
    """One cell of a grid where the first layer's outputs, affine in the coordinates, are combined and not computed again."""
    with torch.no_grad():
        outputs = next(iter(problem.net.children()))(problem.inputs).numel()
    return forward(problem) - first_layer(problem) + 2 * num_directions * outputs


def gram_sam_cell(problem: Problem, num_directions: int) -> int:
    """One cell of a SAM surface of dense layers: the first layer's step is (XXᵀ)Δ, one B×B matrix on its gradient Δ [B, width].

    Forward, backward and forward of the other layers, twice the combined outputs of the first one, and the Gram product.
    """
    with torch.no_grad():
        outputs = next(iter(problem.net.children()))(problem.inputs)
    rest = forward(problem) - first_layer(problem)
    return 4 * rest + 2 * len(outputs) * outputs.numel() + 2 * 2 * num_directions * outputs.numel()


def hessian_product(problem: Problem) -> int:
    """One product with the Hessian where all that doesn't depend on the vector is kept.

    The derivative of a layer's output, of its gradient and of its inputs' gradient takes two products each as large as the
    forward one; the first layer has no inputs that move, which leaves two.
    """
    return 6 * forward(problem) - 4 * first_layer(problem)
