"""Which of the ways to write a loss was meant: of outputs and targets, of the model and its data, of the model and a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from loss_landscape.arguments import required_arguments
from loss_landscape.explorer.loss_options import LossOptions
from loss_landscape.objective.criterion import LossFunction

BatchLossFunction = Callable[[nn.Module, Any], Tensor]

NETS = ("model", "net", "network", "module")
"""Names of a first argument that is a net and no output of one."""

INSTEAD = "lambda outputs, targets: f(outputs, targets), or lambda model, inputs, targets: f(…)"


@dataclass(frozen=True)
class ChosenLoss:
    """Either a `criterion` of outputs and targets, or a `batch_loss` of the net and a batch; what it is `called`, and `notes`."""

    called: str
    criterion: LossFunction | None = None
    batch_loss: BatchLossFunction | None = None
    notes: tuple[str, ...] = ()


def chosen_loss(loss_fn: Callable[..., Tensor] | None, options: LossOptions) -> ChosenLoss:
    """The loss that was given: custom_loss_fn, else post_batch_hook, else loss_fn.

    A module is a criterion of (outputs, targets), and so is whatever has two required positional arguments; what has three is a
    loss of (model, inputs, targets). Anything else, or more than one of custom_loss_fn and loss_fn, raises ValueError.
    """
    hook, custom = options.post_batch_hook, options.custom_loss_fn
    if custom is not None and loss_fn is not None:
        raise ValueError("loss_fn and custom_loss_fn are both given, and only one can be the loss: leave one of them out")
    if custom is not None:
        unused = () if hook is None else ("custom_loss_fn is the whole loss: post_batch_hook is not called",)
        return ChosenLoss(_name(custom), batch_loss=_of_the_model(custom, "custom_loss_fn"), notes=unused)
    if hook is not None:
        unused = () if loss_fn is None else ("post_batch_hook gives the loss: loss_fn is not called",)
        return ChosenLoss(_name(hook), batch_loss=_of_outputs(hook), notes=unused)
    if loss_fn is None:
        raise ValueError("give a loss: loss_fn(outputs, targets), loss_fn(model, inputs, targets), or custom_loss_fn=")
    if isinstance(loss_fn, nn.Module):
        return ChosenLoss(_name(loss_fn), criterion=loss_fn)
    required = _required(loss_fn, "loss_fn")
    if len(required) == 3:
        return ChosenLoss(_name(loss_fn), batch_loss=_of_the_model(loss_fn, "loss_fn"))
    if len(required) == 2 and required[0] in NETS:
        raise ValueError(
            f"loss_fn({', '.join(required)}) has two required arguments, which are taken for (outputs, targets), but the first "
            f"is called {required[0]}; give it as custom_loss_fn= if it is a loss of the model and a whole batch"
        )
    if len(required) == 2:
        return ChosenLoss(_name(loss_fn), criterion=loss_fn)
    raise _unclear("loss_fn", required)


def _of_the_model(function: Callable[..., Tensor], called: str) -> BatchLossFunction:
    """A loss of (model, inputs, targets), or as custom_loss_fn of (model, batch), as one of (model, batch)."""
    required = _required(function, called)
    if len(required) == 2:
        return function
    if len(required) != 3:
        raise _unclear(called, required)

    def batch_loss(model: nn.Module, batch: Any) -> Tensor:
        inputs, targets = _pair(batch, f"{called}(model, inputs, targets)")
        return function(model, inputs, targets)

    return batch_loss


def _of_outputs(hook: Callable[[Any, Any, Any], Tensor]) -> BatchLossFunction:
    required = _required(hook, "post_batch_hook")
    if len(required) != 3:
        raise ValueError(f"post_batch_hook takes (outputs, inputs, targets), got one of ({', '.join(required)})")

    def batch_loss(model: nn.Module, batch: Any) -> Tensor:
        inputs, targets = _pair(batch, "post_batch_hook(outputs, inputs, targets)")
        return hook(_outputs(model, inputs), inputs, targets)

    return batch_loss


def _outputs(model: nn.Module, inputs: Any) -> Any:
    """What the net gives for inputs as a criterion's are given: a mapping as keywords, a tuple or list one by one."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def _pair(batch: Any, wanted_by: str) -> tuple[Any, Any]:
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    what = f"{len(batch)} parts" if isinstance(batch, tuple | list) else type(batch).__name__
    raise ValueError(
        f"{wanted_by} needs batches of (inputs, targets), got {what}; turn them into pairs by pre_batch_hook=, or give "
        "custom_loss_fn=f(model, batch)"
    )


def _required(function: Callable[..., Tensor], called: str) -> list[str]:
    """The names of the positional arguments without a default."""
    if not callable(function):
        raise TypeError(f"{called} must be callable, got {type(function).__name__}")
    if isinstance(function, type):
        raise TypeError(f"{called} is the class {function.__name__}; give an instance of it, {function.__name__}()")
    read = function.forward if isinstance(function, nn.Module) else function
    return required_arguments(read, called, instead=INSTEAD)


def _unclear(called: str, required: list[str]) -> ValueError:
    return ValueError(
        f"{called} has {_counted(required)} ({', '.join(required)}), so what it wants is not clear; a criterion "
        "takes (outputs, targets), a loss of the model (model, inputs, targets)"
    )


def _counted(required: list[str]) -> str:
    return f"{len(required)} required argument{'' if len(required) == 1 else 's'}"


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)
