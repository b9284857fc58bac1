"""The loss of one batch as a function of the parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from loss_landscape.nested import copied, tensors_in
from loss_landscape.objective.criterion import Criterion, LossFunction
from loss_landscape.objective.functional_net import FunctionalNet, Parameters
from loss_landscape.objective.held_draws import DrawWatch
from loss_landscape.objective.rehearsal import NotEvaluableError, Rehearsal

FAULTS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError)
"""What a user's net or loss may raise for inputs that it does not take."""
NO_GRADIENT = "does not require grad and does not have a grad_fn"


@dataclass(frozen=True, eq=False)
class BatchLoss:
    """A net with either a `criterion` of its outputs and the targets, or a `custom` loss of the net and the whole batch."""

    net: FunctionalNet
    criterion: Criterion | None = None
    custom: ModelWithLoss | None = None

    @classmethod
    def of_criterion(cls, net: FunctionalNet, loss_fn: LossFunction, rehearsal: Rehearsal) -> BatchLoss:
        """The loss `loss_fn(outputs, targets)`, which sees the first batch; TypeError where batches are no (inputs, targets)."""
        batch = rehearsal.batch
        if not (isinstance(batch, tuple | list) and len(batch) == 2):
            raise TypeError(
                f"each batch must be (inputs, targets) for a loss_fn, got {_kind_of(batch)}; for other batches give "
                "batch_loss=f(model, batch), to the Writer custom_loss_fn=, instead"
            )
        with torch.no_grad():
            with explained("the net, in eval mode,", inputs=batch[0]):
                net, outputs = _rehearsed_on_inputs(net, rehearsal)
            criterion = Criterion(loss_fn).prepared(outputs, copied(batch[1]))
            told = explained("loss_fn(outputs, targets)", outputs=outputs, targets=batch[1])
            with told, DrawWatch(net.device) as drawn:
                watch = criterion.watched(outputs, batch[1], rehearsal.outside(net))
            rehearsal.require_no_reading("loss_fn", watch)
            rules = net.rules.with_strangers(watch.strangers.values()).with_draws(drawn.sources)
            return cls(replace(net, rules=rules), criterion=criterion)

    @classmethod
    def of_function(cls, net: FunctionalNet, function: Callable[[nn.Module, Any], Tensor], rehearsal: Rehearsal) -> BatchLoss:
        """The loss `function(model, batch)`, which sees the first batch."""
        with explained("batch_loss(model, batch), with the net in eval mode,", batch=rehearsal.batch):
            net, custom = rehearsed_function(net, function, rehearsal)
        return cls(net, custom=custom)

    def __call__(self, parameters: Parameters, batch: Any, dtype: torch.dtype | None = None) -> Tensor:
        """The loss of a batch at `parameters` by name, a scalar to be differentiated; the net in `dtype` where that is given."""
        with self.net.drawing(batch):
            batch = self.net.lent(batch)
            if self.custom is not None:
                return self.custom.at(self.net, parameters, batch)
            assert self.criterion is not None  # one of the two is there
            return self.criterion(self.net(parameters, batch[0], dtype), batch[1])

    def outputs(self, parameters: Parameters, batch: Any, dtype: torch.dtype | None = None) -> Any:
        """What the net gives for a batch of (inputs, targets) at `parameters`, in `dtype` where that is given."""
        with self.net.drawing(batch):
            return self.net(parameters, self.net.lent(batch)[0], dtype)

    @contextlib.contextmanager
    def drawing_on(self, batch: Any) -> Iterator[None]:
        """A context for a call of the criterion alone: inside, the random numbers go on from where the net leaves off."""
        with self.net.drawing(batch):
            if self.net.rules.draws:
                with torch.no_grad():
                    self.net({}, self.net.lent(batch)[0])
            yield

    def with_net(self, net: FunctionalNet) -> BatchLoss:
        """The same loss of another form of the net."""
        custom = None if self.custom is None else self.custom.around(net)
        criterion = self.criterion
        if criterion is not None and net.device != self.net.device:
            criterion = criterion.on(net.device)
        return replace(self, net=net, criterion=criterion, custom=custom)


def rehearsed_function(
    net: FunctionalNet, function: Callable[[nn.Module, Any], Tensor], rehearsal: Rehearsal
) -> tuple[FunctionalNet, ModelWithLoss]:
    """The net with the rules that a loss or a regulariser of it needs, and the two in one."""
    custom = ModelWithLoss(net.module, function)
    try:
        net, _ = rehearsal.rules_for(net, custom.at)
    except RuntimeError as error:
        if NO_GRADIENT not in str(error):
            raise
        custom = ModelWithLoss(net.module, function, differentiates=True)
        net, _ = rehearsal.rules_for(net, custom.at)
    return net, custom


def _rehearsed_on_inputs(net: FunctionalNet, rehearsal: Rehearsal) -> tuple[FunctionalNet, Any]:
    """The net with the rules of its calls, and its outputs; tuples, lists and mappings that it does not take apart are one."""

    def run(net: FunctionalNet, parameters: Parameters, batch: Any) -> Any:
        return net(parameters, batch[0])

    try:
        return rehearsal.rules_for(net, run)
    except (torch.OutOfMemoryError, NotEvaluableError):
        raise
    except FAULTS as error:
        if not isinstance(rehearsal.batch[0], Mapping | tuple | list):
            raise
        try:
            return rehearsal.rules_for(replace(net, rules=replace(net.rules, whole_inputs=True)), run)
        except (torch.OutOfMemoryError, NotEvaluableError):
            raise
        except FAULTS:
            raise error from None  # of the documented way


@contextlib.contextmanager
def explained(what: str, number: int = 0, **given: Any) -> Iterator[None]:
    """Turns what a user's net or loss raises for that batch into one sentence that tells what it was given."""
    try:
        yield
    except (torch.OutOfMemoryError, NotEvaluableError):
        raise
    except FAULTS as error:
        text = str(error).strip()
        first_line = text.splitlines()[0] if text else type(error).__name__
        facts = ", ".join(f"{name} {_in_words(value)}" for name, value in given.items())
        which = f"batch {number}" if number else "the first batch"
        raise ValueError(f"{what} failed on {which} ({facts}): {first_line}") from error


def _kind_of(batch: Any) -> str:
    length = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
    return f"a {type(batch).__name__}{length}"


def _in_words(value: Any) -> str:
    """The shapes and dtypes of a batch's part."""
    found = [f"{str(t.dtype).removeprefix('torch.')} {list(t.shape)}" for t in tensors_in(value)]
    return " and ".join(found[:4]) + (" …" if len(found) > 4 else "") if found else type(value).__name__


class ModelWithLoss(nn.Module):
    """A net and a loss of it in one module, so that functional_call gives `loss` a real module.

    One that `differentiates` the net's parameters gets some that require a gradient, also where nobody else wants it.
    """

    def __init__(self, net: nn.Module, loss: Callable[[nn.Module, Any], Tensor], *, differentiates: bool = False):
        super().__init__()
        self.net, self.loss, self.differentiates = net, loss, differentiates

    def forward(self, batch: Any) -> Tensor:
        return self.loss(self.net, batch)

    def around(self, net: FunctionalNet) -> ModelWithLoss:
        """The same loss of another form of the net."""
        return ModelWithLoss(net.module, self.loss, differentiates=self.differentiates)

    def at(self, net: FunctionalNet, parameters: Parameters, batch: Any) -> Tensor:
        """The loss with `parameters` in place of the net's own."""
        if self.differentiates:
            parameters = {name: p if p.requires_grad else p.clone().requires_grad_() for name, p in parameters.items()}
        with torch.enable_grad():  # it may differentiate the net itself
            return net.run(net.state(parameters), (batch,), inside=self)
