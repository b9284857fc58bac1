"""A model of the zoo: how it is built, on what, and what is known of it beforehand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from zoo.plain import BatchLoss, PlainLoss

from loss_landscape import LossSurface

OutputsLoss = Callable[[Any, Any], Tensor]
"""(outputs, targets) → a mean over the examples of a batch."""

CLASSES = 5
NOT_THE_SLOPE = "autograd's gradient is not the loss's slope"


@dataclass(frozen=True)
class Entry:
    """A model by its `name`, and where it comes from.

    `build()` makes the net, `data(generator)` its batches of (inputs, targets), `loss` a mean over a batch's examples, or with
    `of_the_net` over `loss(net, batch)`. `eager` says why its cells are evaluated by the net itself, "" where they are not.
    `single_inside` nets go through float32 whatever dtype they are in. `told` is in the Hessian's note where autograd's gradient
    is not the loss's slope. One that `merges` its weights in eval mode gives them no gradient there.
    """

    name: str
    origin: str
    build: Callable[[], nn.Module]
    data: Callable[[torch.Generator], list[Any]]
    loss: OutputsLoss | BatchLoss = nn.CrossEntropyLoss()
    of_the_net: bool = False
    eager: str = ""
    single_inside: bool = False
    told: str = ""
    merges: bool = False

    def model(self) -> nn.Module:
        """The net, the same each time, with parameters that are not those of a new net."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = self.build()
            for module in net.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                    module.running_mean.normal_(0, 0.1)
                    module.running_var.uniform_(0.5, 1.5)
            with torch.no_grad():
                for parameter in net.parameters():
                    if parameter.requires_grad and parameter.dim() == 1:
                        parameter.add_(0.02 * torch.randn_like(parameter))
        return net.train()

    def batches(self) -> list[Any]:
        """The batches, the same each time."""
        return self.data(torch.Generator().manual_seed(1))

    def surface(self, net: nn.Module, batches: Sequence[Any], dtype: torch.dtype | None = None) -> LossSurface:
        """As the library is asked for it."""
        if self.of_the_net:
            return LossSurface(net, None, batches, batch_loss=self.loss, batch_weight=num_examples, dtype=dtype)
        own = isinstance(self.loss, nn.Module)
        return LossSurface(net, self.loss, batches, batch_weight=None if own else num_examples, dtype=dtype)

    def plain(self, net: nn.Module, batches: Sequence[Any]) -> PlainLoss:
        """As a loop computes it."""
        counts = [num_examples(batch) for batch in batches]
        shares = [count / sum(counts) for count in counts]
        return PlainLoss(net, batches, shares, self._loss_in, training=self.merges)

    def _loss_in(self, dtype: torch.dtype) -> BatchLoss:
        loss = copy.deepcopy(self.loss).to(dtype) if isinstance(self.loss, nn.Module) else self.loss
        return loss if self.of_the_net else lambda net, batch: loss(outputs_of(net, batch[0]), batch[1])


def num_examples(batch: Any) -> float:
    """How many examples a batch of (inputs, targets) has, by its targets."""
    return float(len(batch[1]))


def outputs_of(net: nn.Module, inputs: Any) -> Any:
    """What a net gives for a tensor, a tuple of arguments, or a mapping of named ones."""
    if isinstance(inputs, Mapping):
        return net(**inputs)
    return net(*inputs) if isinstance(inputs, tuple) else net(inputs)


def images(channels: int, size: int, counts: Sequence[int] = (2, 1)) -> Callable[[torch.Generator], list[Any]]:
    """Batches of images with labels."""

    def data(generator: torch.Generator) -> list[Any]:
        return [(torch.randn(count, channels, size, size, generator=generator), labels(count, generator)) for count in counts]

    return data


def vectors(width: int, counts: Sequence[int] = (5, 3)) -> Callable[[torch.Generator], list[Any]]:
    """Batches of vectors with labels."""

    def data(generator: torch.Generator) -> list[Any]:
        return [(torch.randn(count, width, generator=generator), labels(count, generator)) for count in counts]

    return data


def labels(count: int, generator: torch.Generator) -> Tensor:
    """Classes at random."""
    return torch.randint(CLASSES, (count,), generator=generator)
