"""A situation drawn from a seed: a net, its loss, batches, and how the library is asked about it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from zoo.plain import PlainLoss

from loss_landscape import LossSurface
from random_nets.architectures import Architecture, architecture
from random_nets.losses import ClassesSecond, Loss, loss


@dataclass(frozen=True)
class Options:
    """How the library is asked: in which dtype, by `batch_loss` or a criterion, with which ρ, chunk and radius."""

    dtype: torch.dtype
    by_batch_loss: bool
    rho: float
    chunk: int | None
    radius: float
    num_directions: int


@dataclass(frozen=True)
class Trial:
    """A drawn situation."""

    seed: int
    net: nn.Module
    loss: Loss
    batches: list[Any]
    penalty: Callable[[nn.Module], Tensor] | None
    options: Options
    smooth: bool
    words: str = field(default="")

    @classmethod
    def drawn(cls, seed: int) -> Trial:
        """The situation of this seed: the same every time."""
        draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            drawn = architecture(draw)
        chosen = loss(draw, drawn)
        net = ClassesSecond(drawn.net) if chosen.places else drawn.net
        batches = _batches(draw, generator, net, drawn, chosen)
        penalty, words = draw.choice(PENALTIES)
        options = Options(
            dtype=draw.choice([torch.float64, torch.float64, torch.float32]),
            by_batch_loss=draw.random() < 0.25,
            rho=draw.choice([0.0, 0.05, 0.3]),
            chunk=draw.choice([None, None, 1, 3, 7]),
            radius=draw.choice([0.1, 0.5, 1.5]),
            num_directions=draw.choice([1, 2, 2, 3]),
        )
        smooth = drawn.smooth and chosen.smooth and penalty is not PENALTIES[-1][0]
        told = f"{net}\n{_name(chosen.criterion)}, penalty {words}, batches of {[_length(batch) for batch in batches]}, {options}"
        return cls(seed, net, chosen, batches, penalty, options, smooth, told)

    def surface(self, dtype: torch.dtype) -> LossSurface:
        """As the library sees it, in `dtype`."""
        if not self.options.by_batch_loss:
            return LossSurface(self.net, self.loss.criterion, self.batches, dtype=dtype, regularizer=self.penalty)
        inner = self.loss_in(dtype)
        divides = self.loss.denominator
        weight = (lambda batch: 1.0) if divides is None else (lambda batch: divides(batch[1]))
        batches = self.batches if divides is not None else self.batches[:1]
        return LossSurface(self.net, None, batches, batch_loss=inner, batch_weight=weight, dtype=dtype, regularizer=self.penalty)

    def plain(self) -> PlainLoss:
        """As a loop would compute it."""
        divides = self.loss.denominator
        batches = self.batches[:1] if divides is None and self.options.by_batch_loss else self.batches
        counts = [1.0 if divides is None else divides(batch[1]) for batch in batches]
        whole = 1.0 if divides is None else sum(counts)
        return PlainLoss(self.net, batches, [count / whole for count in counts], self.loss_in, self.penalty)

    def loss_in(self, dtype: torch.dtype) -> Callable[[nn.Module, Any], Tensor]:
        """A batch's loss with the criterion's own tensors in `dtype`."""
        criterion = self.loss.in_dtype(dtype)
        return lambda net, batch: criterion(called(net, batch[0]), batch[1])


def called(net: nn.Module, inputs: Any) -> Tensor:
    """The net's outputs for a tensor, a tuple of arguments or a mapping of named ones."""
    if isinstance(inputs, dict):
        return net(**inputs)
    return net(*inputs) if isinstance(inputs, tuple) else net(inputs)


def _squares(net: nn.Module) -> Tensor:
    return 0.01 * sum(p.square().sum() for p in net.parameters())


def _weighted_norm(net: nn.Module) -> Tensor:
    return 0.02 * sum((p.square().sum() + 0.1).sqrt() for p in net.parameters() if p.dim() > 1)


def _absolute(net: nn.Module) -> Tensor:
    return 0.01 * sum(p.abs().sum() for p in net.parameters())


PENALTIES: list[tuple[Callable[[nn.Module], Tensor] | None, str]] = [
    (None, "none"),
    (None, "none"),
    (None, "none"),
    (_squares, "of squares"),
    (_weighted_norm, "of norms"),
    (_absolute, "of absolute values"),
]


def _batches(draw: random.Random, generator: torch.Generator, net: nn.Module, drawn: Architecture, chosen: Loss) -> list[Any]:
    made = []
    for _ in range(draw.randint(1, 3)):
        inputs = drawn.inputs(draw.randint(1, 5), generator)
        with torch.no_grad(), torch.random.fork_rng():
            outputs = net.eval()(*inputs) if isinstance(inputs, tuple) else called(net.eval(), inputs)
        made.append((inputs, chosen.targets(outputs, generator)))
    net.train()
    return made


def _name(criterion: Any) -> str:
    if not isinstance(criterion, nn.Module):
        return "mean squared error, as a function"
    words = {name: getattr(criterion, name, None) for name in ("reduction", "label_smoothing", "weight", "pos_weight")}
    return f"{type(criterion).__name__}({', '.join(f'{name}={value}' for name, value in words.items() if value is not None)})"


def _length(batch: Any) -> int:
    return len(batch[1])
