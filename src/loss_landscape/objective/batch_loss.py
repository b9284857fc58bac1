"""The loss of one batch as a function of the parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from loss_landscape.nested import tensors_in
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
            parameters = {name: p.clone() for name, p in net.parameters.items()}
            with _explained("the net, in eval mode,", inputs=batch[0]):
                outputs = net(parameters, batch[0])
            criterion = Criterion(loss_fn).prepared(outputs, batch[1])
            with _explained("loss_fn(outputs, targets)", outputs=outputs, targets=batch[1]):
                criterion(outputs, batch[1])
            return cls(net, criterion=criterion)

    @classmethod
    def of_function(cls, net: FunctionalNet, function: Callable[[nn.Module, Any], Tensor], batches: Batches) -> BatchLoss:
        """The loss `function(model, batch)`, which sees the first batch."""
        losses, batch = cls(net, custom=ModelWithLoss(net.module, function)), next(iter(batches))
        with _explained("batch_loss(model, batch), with the net in eval mode,", batch=batch):
            losses({name: p.clone() for name, p in net.parameters.items()}, batch)
        return losses

    def __call__(self, parameters: Parameters, batch: Any, dtype: torch.dtype | None = None) -> Tensor:
        """The loss of a batch at `parameters` by name, a scalar to be differentiated; the net in `dtype` where that is given."""
        if self.custom is not None:
            with torch.enable_grad():  # it may differentiate the net itself
                return self.custom.at(self.net, parameters, batch)
        assert self.criterion is not None  # one of the two is there
        return self.criterion(self.outputs(parameters, batch, dtype), batch[1])

    def outputs(self, parameters: Parameters, batch: Any, dtype: torch.dtype | None = None) -> Any:
        """What the net gives for a batch of (inputs, targets) at `parameters`, in `dtype` where that is given."""
        return self.net(parameters, batch[0], dtype)

    def with_net(self, net: FunctionalNet) -> BatchLoss:
        """The same loss of another form of the net."""
        custom = None if self.custom is None else ModelWithLoss(net.module, self.custom.loss)
        criterion = self.criterion
        if criterion is not None and net.device != self.net.device:
            criterion = criterion.on(net.device)
        return replace(self, net=net, criterion=criterion, custom=custom)


@contextlib.contextmanager
def _explained(what: str, **given: Any) -> Iterator[None]:
    """Turns what a user's net or loss raises for the first batch into one sentence that tells what it was given."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        text = str(error).strip()
        first_line = text.splitlines()[0] if text else type(error).__name__
        facts = ", ".join(f"{name} {_in_words(value)}" for name, value in given.items())
        raise ValueError(f"{what} failed on the first batch ({facts}): {first_line}") from error


def _in_words(value: Any) -> str:
    """The shapes and dtypes of a batch's part."""
    found = [f"{str(t.dtype).removeprefix('torch.')} {list(t.shape)}" for t in tensors_in(value)]
    return " and ".join(found[:4]) + (" …" if len(found) > 4 else "") if found else type(value).__name__


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
