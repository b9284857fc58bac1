"""What our own results cost: memory of a plane, seconds as the work grows."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lla_benchmarks.lines import Table, timed
from lla_benchmarks.nets import CONVNET, MLP, Kind, examples, trained
from lla_benchmarks.sizes import Sizes
from loss_landscape import HessianOperator, LossSurface, evaluate_grid, random_directions, spectral_density

KINDS = {"mlp": MLP, "convnet": CONVNET}
BUDGET_MB = 512
NUM_PROCESSES = 3
STATUS = Path("/proc/self/status")


# -- memory -----------------------------------------------------------------------------------------------------


def memory(sizes: Sizes) -> Table:
    """The peak of a plane above a plain forward pass, each time in a process of its own."""
    rows = []
    for name in KINDS:
        for side in sizes.sides:
            least, median, most = sorted(_extra_in_a_process(name, side, sizes) for _ in range(NUM_PROCESSES))
            told = f"{median:.0f} MB ({least:.0f} – {most:.0f})"
            rows.append((KINDS[name].name, f"{side}×{side}", told, "yes" if most <= BUDGET_MB else "no"))
    held = "Memory allocated on the accelerator"
    if sizes.device.type == "cpu":
        held = "Resident memory, with the holes that the C library's heap leaves now and then"
    return Table(
        f"Memory of a plane at batch {sizes.batch}: the peak above a plain forward pass",
        ("net", "cells", "surface, directions and plane", f"within {BUDGET_MB} MB"),
        rows,
        f"{held}: the median of {NUM_PROCESSES} processes, with the smallest and the largest.",
    )


def _extra_in_a_process(name: str, side: int, sizes: Sizes) -> float:
    command = [sys.executable, "-m", "lla_benchmarks.costs", name, str(side), str(sizes.batch), str(sizes.device)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def extra_megabytes(kind: Kind, side: int, batch_size: int, device: torch.device) -> float:
    """The process's peak with a plane, less its peak before; what a first plane loads is loaded by a toy's."""
    draw = torch.Generator().manual_seed(0)
    inputs, targets = (part[:batch_size].to(device) for part in examples(kind, draw))
    _plane(nn.Linear(3, 2).to(device), torch.ones(4, 3, device=device), torch.zeros(4, dtype=torch.long, device=device), 3)
    net = kind.build().to(device).eval()
    with torch.no_grad():
        net(inputs)
    before = peak(device)
    _plane(net, inputs, targets, side)
    return (peak(device) - before) / 2**20


def _plane(net: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, side: int) -> None:
    surface = LossSurface(net, nn.CrossEntropyLoss(), [(inputs, targets)])
    evaluate_grid(surface, random_directions(surface, 2), side)


def peak(device: torch.device) -> int:
    """Bytes at most, of this process since it began or of its tensors on the accelerator."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # not getrusage: there a process starts with the peak of the one that started it
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


# -- growth -----------------------------------------------------------------------------------------------------


def growth(sizes: Sizes) -> Table:
    """Seconds against cells, probes and batches."""
    rows = []
    for what, counts in (("cells", _cells(sizes)), ("probes", _probes(sizes)), ("batches", _batches(sizes))):
        for count, program in counts:
            program(0)
            seconds = statistics.median(timed(program, number, sizes.device)[0] for number in range(sizes.num_rounds))
            rows.append((what, str(count), f"{seconds:.3f}", f"{seconds / count * 1e3:.3g}"))
    return Table(
        f"Seconds as the work grows, medians of {sizes.num_rounds}",
        ("", "number", "seconds", "ms each"),
        rows,
        f"Cells: planes of the MLP, batch {sizes.batch}. Probes: densities of the convnet's Hessian, batch {sizes.small_batch}, "
        f"{sizes.lanczos_steps} steps each. Batches of {sizes.small_batch}: the convnet, {sizes.resnet_side} cells a side.",
    )


Growing = Iterator[tuple[int, Callable[[int], Any]]]


def _cells(sizes: Sizes) -> Growing:
    surface = trained(MLP, sizes.batch, sizes.num_steps, sizes.device).surface()
    directions = random_directions(surface, 2)
    for side in sizes.sides:
        yield side**2, lambda number, side=side: evaluate_grid(surface, directions, side)


def _probes(sizes: Sizes) -> Growing:
    operator = HessianOperator(trained(CONVNET, sizes.small_batch, sizes.num_steps, sizes.device).surface())
    for count in sizes.probe_counts:
        yield count, lambda number, count=count: spectral_density(operator, count, sizes.lanczos_steps)


def _batches(sizes: Sizes) -> Growing:
    problem = trained(CONVNET, sizes.small_batch * max(sizes.batch_counts), sizes.num_steps, sizes.device)
    batches = list(zip(problem.inputs.split(sizes.small_batch), problem.targets.split(sizes.small_batch), strict=True))
    for count in sizes.batch_counts:
        surface = LossSurface(problem.net, nn.CrossEntropyLoss(), batches[:count])
        directions = random_directions(surface, 2)
        yield count, lambda number, surface=surface, directions=directions: evaluate_grid(surface, directions, sizes.resnet_side)


if __name__ == "__main__":
    name, side, batch_size, device = sys.argv[1:]
    print(extra_megabytes(KINDS[name], int(side), int(batch_size), torch.device(device)))
