"""The loss of one batch as a function of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from loss_landscape.objective.batches import Batches
from loss_landscape.objective.criterion import Criterion, LossFunction
from loss_landscape.objective.functional_net import FunctionalNet, Parameters, called


@dataclass(frozen=True, eq=False)
class BatchLoss:
    """A net with either a `criterion` of its outputs and the targets, or a `custom` loss of the net and the whole batch."""

    net: FunctionalNet
    criterion: Criterion | None = None
    custom: ModelWithLoss | None = None

    @classmethod
    def of_criterion(cls, net: FunctionalNet, loss_fn: LossFunction, batches: Batches) -> BatchLoss:
        """The loss `loss_fn(outputs, targets)`, which sees the first batch; TypeError where batches are no (inputs, targets)."""
        batch = next(iter(batches))
        if not (isinstance(batch, tuple | list) and len(batch) == 2):
            raise TypeError(
                f"each batch must be (inputs, targets) for a loss_fn, got {type(batch).__name__}; for other batches give "
                "batch_loss=f(model, batch) instead"
            )
        with torch.no_grad():
            # clones: a net may write to what it is given
            outputs = net({name: p.clone() for name, p in net.parameters.items()}, batch[0])
            return cls(net, criterion=Criterion(loss_fn).prepared(outputs, batch[1]))

    def __call__(self, parameters: Parameters, batch: Any, dtype: torch.dtype | None = None) -> Tensor:
        """The loss of a batch at `parameters` by name, a scalar to be differentiated; the net in `dtype` where that is given."""
        if self.custom is not None:
            with torch.enable_grad():  # it may differentiate the net itself
                return self.custom.at(self.net, parameters, batch)
        return self.criterion(self.outputs(parameters, batch, dtype), batch[1])

    def outputs(self, parameters: Parameters, batch: Any, dtype: torch.dtype | None = None) -> Any:
        """What the net gives for a batch of (inputs, targets) at `parameters`, in `dtype` where that is given."""
        return self.net(parameters, batch[0], dtype)

    def with_net(self, net: FunctionalNet) -> BatchLoss:
        """The same loss of another form of the net."""
        custom = None if self.custom is None else ModelWithLoss(net.module, self.custom.loss)
        moved = self.criterion is not None and net.device != self.net.device
        criterion = self.criterion.on(net.device) if moved else self.criterion
        return replace(self, net=net, criterion=criterion, custom=custom)


class ModelWithLoss(nn.Module):
    """A net and a loss of it in one module, so that functional_call gives `loss` a real module."""

    def __init__(self, net: nn.Module, loss: Callable[[nn.Module, Any], Tensor]):
        super().__init__()
        self.net, self.loss = net, loss

    def forward(self, batch: Any) -> Tensor:
        return self.loss(self.net, batch)

    def at(self, net: FunctionalNet, parameters: Parameters, batch: Any) -> Tensor:
        """The loss with `parameters` in place of the net's own."""
        state: Mapping[str, Tensor] = {f"net.{name}": tensor for name, tensor in net.state(parameters).items()}
        return called(self, state, (batch,))
