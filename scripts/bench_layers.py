"""What a kind of layer, a norm or an activation costs: forward and backward of a net, beside the plain net's.

Plain is with linear layers and convolutions as they are, no norm, and relu.

    python scripts/bench_layers.py

The two run alternately in one process; seconds are CPU time where there is no card.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from taskshift.clock import synchronize
from taskshift.nets.activations import ActivationName
from taskshift.nets.convnet import ConvNet
from taskshift.nets.layer_kinds import LayerName
from taskshift.nets.layers import NormName
from taskshift.nets.mlp import MLP

NETS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    "MLP 784-100-100-10": (MLP, (1, 28, 28)),
    "convnet 28×28": (ConvNet, (1, 28, 28)),
}


def main() -> None:
    """Print a line a net, kind and batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    options = parser.parse_args()
    device = torch.device(options.device)
    print(f"| net | batch | with | times the plain net's ({options.rounds} rounds) |\n|---|---|---|---|")
    for name, (make, shape) in NETS.items():
        for size in options.batches:
            for what, ratios in compared(make, shape, size, device, options.rounds):
                print(f"| {name} | {size} | {what} | {statistics.median(ratios):.2f} ({min(ratios):.2f} – {max(ratios):.2f}) |")


def compared(
    make: Callable[..., nn.Module], shape: tuple[int, ...], size: int, device: torch.device, rounds: int
) -> Iterator[tuple[str, list[float]]]:
    """Each kind of layer, norm and activation with its net's seconds over the plain net's, round by round."""
    inputs = torch.randn(size, *shape, device=device)
    plain = make(shape, 10, norm="none").to(device)
    for option, value in variants(size):
        other = make(shape, 10, **{"norm": "none", option: value}).to(device)
        for net in (plain, other):
            seconds_of(net, inputs)  # what is made once
        yield f"{option}={value}", [seconds_of(other, inputs) / seconds_of(plain, inputs) for _ in range(rounds)]


def variants(size: int) -> Iterator[tuple[str, str]]:
    """Options of a net that are timed, with their values; batch norm takes no batch of a single example."""
    yield from (("layer", layer) for layer in get_args(LayerName) if layer != "linear")
    yield from (("activation", activation) for activation in get_args(ActivationName) if activation != "relu")
    yield from (("norm", norm) for norm in get_args(NormName) if norm != "none" and (norm, size) != ("batch", 1))


def seconds_of(net: nn.Module, inputs: torch.Tensor, repeats: int = 10) -> float:
    """Of so many passes forward and backward."""
    clock = time.perf_counter if inputs.is_cuda else time.process_time
    synchronize(inputs.device)
    begun = clock()
    for _ in range(repeats):
        net.zero_grad()
        net(inputs).square().sum().backward()
    synchronize(inputs.device)
    return clock() - begun


if __name__ == "__main__":
    main()
