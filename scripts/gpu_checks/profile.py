"""The published profile of an untrained ResNet-18 of 11,181,642 parameters at evaluation batch 64, with ours beside it.

Published for a single GPU: two eigenvectors by 20 power iterations each, planes of 41×41 cells, five eigenvalues, six Hutchinson
probes, a density by eight probes of 50 Lanczos steps, and the SAM surface of the same grid. Ours solves eigenpairs to a residual.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from lla_benchmarks.lines import largest_difference
from torch import nn

from gpu_checks.rows import FALLS_SHORT, HOLDS, Place, Row
from loss_landscape import (
    Evaluation,
    HessianOperator,
    LossSurface,
    eigenpairs,
    evaluate_grid,
    random_directions,
    spectral_density,
    trace,
)
from taskshift.nets.resnet18 import ResNet18

BATCH, SIDE, PROBES, STEPS = 64, 41, 8, 50
TOP_2, PLANE, SPECTRUM, SAM = 6.3, 12.5, 26.0, 23.6  # published, seconds


def resnet_profile(place: Place) -> Iterator[Row]:
    """Eigenpairs, plane (also TF32 and bfloat16), spectrum and SAM surface."""
    surface = resnet_surface(place)
    side, steps = (5, 5) if place.quick else (SIDE, STEPS)
    hessian = HessianOperator(surface)
    hessian @ torch.ones(surface.size, device=place.device)  # recorded once, before the clock runs
    seconds, pairs = place.timed(lambda: eigenpairs(hessian, top=2, tolerance=1e-2))
    yield against("two largest eigenpairs", seconds, TOP_2, f"residuals ≤ {float(pairs.residuals.max()):.1g}")
    axes = random_directions(surface, 2, generator=0)
    seconds, plain = place.timed(lambda: evaluate_grid(surface, axes, side))
    yield against(f"{side}×{side} plane", seconds, PLANE, f"strategy {plain.info.evaluation.strategy}, check included")
    for name, losses, seconds in other_precisions(place, surface, axes, side):
        off = largest_difference(losses, plain.losses)
        yield against(f"{side}×{side} plane, {name}", seconds, PLANE, f"largest difference {off:.1g} of 1 + |loss|")
    seconds, _ = place.timed(lambda: spectrum(hessian, steps))
    yield against("spectrum: 5 eigenpairs, 6 probes, density", seconds, SPECTRUM, f"{PROBES} probes × {steps} steps")
    seconds, _ = place.timed(lambda: evaluate_grid(surface, axes, side, rho=0.05))
    yield against(f"{side}×{side} SAM surface", seconds, SAM)


def resnet_surface(place: Place) -> LossSurface:
    """torchvision's stem on 3×32×32 images of noise, as drawn, cross entropy."""
    torch.manual_seed(0)
    net = ResNet18((3, 32, 32), 10, stem="imagenet", width=8 if place.quick else 64).to(place.device)
    inputs = torch.randn(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(place.device)
    targets = torch.randint(0, 10, (BATCH,), generator=torch.Generator().manual_seed(1)).to(place.device)
    return LossSurface(net, nn.CrossEntropyLoss(), [(inputs, targets)])


def other_precisions(place: Place, surface: LossSurface, axes, side: int) -> Iterator[tuple[str, object, float]]:
    """The same plane by TF32, where there is a card, and in bfloat16."""
    if place.device.type == "cuda":
        before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        seconds, grid = place.timed(lambda: evaluate_grid(surface, axes, side))
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
        yield "TF32", grid.losses, seconds
    seconds, grid = place.timed(lambda: evaluate_grid(surface, axes, side, evaluation=Evaluation(precision="bfloat16")))
    yield "bfloat16", grid.losses, seconds


def spectrum(hessian: HessianOperator, steps: int) -> None:
    """What the published 26 s are made of."""
    eigenpairs(hessian, top=5, tolerance=1e-2)
    trace(hessian, num_products=6, generator=0)
    spectral_density(hessian, num_probes=PROBES, lanczos_steps=steps, generator=0)


def against(what: str, seconds: float, published: float, remark: str = "") -> Row:
    """Our seconds beside the published ones."""
    told = f"{seconds:.2f} s" + (f" ({remark})" if remark else "")
    verdict = HOLDS if seconds <= published else FALLS_SHORT
    return Row(f"ResNet-18, batch {BATCH}: {what}", told, f"{published:g} s published", verdict)
