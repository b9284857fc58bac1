"""Criteria with every reduction, and what each of them divides by, written out."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from random_nets.architectures import Architecture


@dataclass(frozen=True)
class Loss:
    """A criterion, what makes its targets from (outputs, generator), and what its mean divides by, from the targets.

    `denominator` is None for a sum. `places` puts the classes of [B, T, C] second, where a criterion wants them there.
    """

    criterion: Callable[[Any, Any], Tensor]
    targets: Callable[[Tensor, torch.Generator], Tensor]
    denominator: Callable[[Tensor], float] | None
    places: bool = False
    smooth: bool = True

    def in_dtype(self, dtype: torch.dtype) -> Callable[[Tensor, Tensor], Tensor]:
        """The criterion with its own tensors in `dtype`."""
        return copy.deepcopy(self.criterion).to(dtype) if isinstance(self.criterion, nn.Module) else self.criterion


class ClassesSecond(nn.Module):
    """A net's rows [B, T, C] as [B, C, T], which torch's cross entropy wants."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        return self.net(*inputs, **named).movedim(-1, 1)


def loss(draw: random.Random, net: Architecture) -> Loss:
    """Any that fits the net's outputs."""
    kinds = [regression, regression, binary] + ([classification] * 4 if net.classes > 1 else [])
    return draw.choice(kinds)(draw, net)


def classification(draw: random.Random, net: Architecture) -> Loss:
    """Cross entropy with class weights, smoothing, ignored targets, soft targets, or a margin."""
    classes = net.classes
    reduction = draw.choice(["mean", "mean", "mean", "sum"])
    weight = torch.linspace(0.3, 2, classes) if draw.random() < 0.4 else None
    ignored = draw.random() < 0.3
    kind = draw.random()
    if kind < 0.15 and not net.positions:
        margin = nn.MultiMarginLoss(reduction=reduction)
        return Loss(margin, _labels(classes, 0.0), _count(reduction), smooth=False)
    if kind < 0.3 and not net.positions:
        soft = nn.CrossEntropyLoss(reduction=reduction)
        return Loss(soft, lambda o, g: torch.randn(o.shape, generator=g).softmax(-1).to(o), _count(reduction))
    smoothing = draw.choice([0.0, 0.0, 0.1])
    criterion = nn.CrossEntropyLoss(weight, reduction=reduction, label_smoothing=smoothing)

    def denominator(targets: Tensor) -> float:
        counted = targets[targets != -100]
        return float(len(counted) if weight is None else weight.double()[counted].sum())

    labels = _labels(classes, 0.3 if ignored else 0.0)
    return Loss(criterion, labels, denominator if reduction == "mean" else None, places=bool(net.positions))


def regression(draw: random.Random, net: Architecture) -> Loss:
    """Squared, absolute and other errors, means or sums; one of them a plain function."""
    reduction = draw.choice(["mean", "mean", "sum"])
    kinds = [nn.MSELoss, nn.MSELoss, nn.SmoothL1Loss, nn.HuberLoss, nn.L1Loss, nn.PoissonNLLLoss]
    kind = draw.choice(kinds)

    def targets(outputs: Tensor, g: torch.Generator) -> Tensor:
        made = torch.randn(outputs.shape, generator=g).to(outputs)
        return made.abs().round() if kind is nn.PoissonNLLLoss else made

    smooth = kind in (nn.MSELoss, nn.PoissonNLLLoss)
    divides = (lambda t: float(t.numel())) if reduction == "mean" else None
    if kind is nn.MSELoss and reduction == "mean" and draw.random() < 0.3:
        return Loss(lambda outputs, targets: ((outputs - targets) ** 2).mean(), targets, divides)
    return Loss(kind(reduction=reduction), targets, divides, smooth=smooth)


def binary(draw: random.Random, net: Architecture) -> Loss:
    """Logistic losses, with a weight for the positives."""
    reduction = draw.choice(["mean", "mean", "sum"])
    positive = torch.linspace(0.5, 3, net.classes) if draw.random() < 0.5 else None
    criterion = nn.BCEWithLogitsLoss(pos_weight=positive, reduction=reduction)

    def targets(outputs: Tensor, g: torch.Generator) -> Tensor:
        return (torch.rand(outputs.shape, generator=g) < 0.4).to(outputs)

    return Loss(criterion, targets, (lambda t: float(t.numel())) if reduction == "mean" else None)


def _labels(classes: int, ignored: float) -> Callable[[Tensor, torch.Generator], Tensor]:
    def targets(outputs: Tensor, g: torch.Generator) -> Tensor:
        shape = (len(outputs), *outputs.shape[2:])
        made = torch.randint(classes, shape, generator=g)
        left_out = torch.rand(shape, generator=g) < ignored
        left_out.view(-1)[0] = False
        return torch.where(left_out, -100, made)

    return targets


def _count(reduction: str) -> Callable[[Tensor], float] | None:
    return (lambda targets: float(len(targets))) if reduction == "mean" else None
