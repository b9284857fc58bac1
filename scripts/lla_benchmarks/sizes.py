"""How large everything is: in full, and small enough to try whether it runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Sizes:
    """Sides are cells a side of a plane; `slow_rounds` is for what takes a minute a round."""

    device: torch.device
    num_rounds: int
    slow_rounds: int
    num_seeds: int = 5
    num_steps: int = 300  # of training
    resnet_steps: int = 8
    stages: tuple[int, ...] = (0, 30, 100, 300)  # steps after which a net is looked at
    batch: int = 256
    small_batch: int = 16
    resnet_batch: int = 64
    mlp_side: int = 41
    convnet_side: int = 21
    resnet_side: int = 11
    checked_side: int = 5  # of planes that take too long to be checked whole
    sam_side: int = 41
    sam_convnet_side: int = 11
    probes: int = 8
    lanczos_steps: int = 50
    most_steps: int = 100
    products: int = 5
    sides: tuple[int, ...] = (11, 21, 41, 81)
    probe_counts: tuple[int, ...] = (1, 2, 4)
    batch_counts: tuple[int, ...] = (1, 2, 4, 8)
    matmul_side: int = 1536


def full(device: torch.device, num_rounds: int) -> Sizes:
    """What docs/benchmarks.md tells."""
    return Sizes(device, num_rounds, slow_rounds=max(1, num_rounds // 2))


def quick(device: torch.device, num_rounds: int) -> Sizes:
    """All cases in a minute or two; the numbers mean nothing."""
    return Sizes(
        device,
        num_rounds,
        slow_rounds=1,
        num_seeds=1,
        num_steps=10,
        resnet_steps=1,
        stages=(0, 10),
        batch=16,
        small_batch=8,
        resnet_batch=2,
        mlp_side=11,
        convnet_side=5,
        resnet_side=3,
        checked_side=3,
        sam_side=5,
        sam_convnet_side=3,
        probes=2,
        lanczos_steps=8,
        most_steps=30,
        products=1,
        sides=(3, 5),
        probe_counts=(1, 2),
        batch_counts=(1, 2),
        matmul_side=256,
    )
