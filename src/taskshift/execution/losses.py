"""Which losses one recording serves."""

from __future__ import annotations

from collections.abc import Hashable
from types import FunctionType
from typing import Any

import torch
from torch import nn

from taskshift.execution.unrecordable import UnrecordableError
from taskshift.learners.forward import tensors_of
from taskshift.learners.learner import Loss
from taskshift.learners.part import Tensors

PLAIN = (str, int, float, bool, type(None), torch.dtype)
OF_EVERY_MODULE = frozenset(vars(nn.Module())) - {"training"}


def structure(loss: Loss) -> Hashable:
    """What a recording depends on of a loss: all but the values of its tensors.

    Raises UnrecordableError for one that keeps more than tensors and plain values, which may differ unseen from task to task.
    """
    if isinstance(loss, FunctionType) and loss.__closure__ is None:
        return loss
    if not isinstance(loss, nn.Module):
        raise UnrecordableError(f"the task's loss is a {type(loss).__name__}, not a module whose tensors are its buffers")
    modules = tuple((path, type(module), _plain(module)) for path, module in loss.named_modules())
    return modules, tuple((name, tensor.shape, tensor.dtype) for name, tensor in tensors_of(loss).items())


def tensors_of_loss(loss: Loss) -> Tensors:
    """What may differ between the losses of two tasks with one structure."""
    return tensors_of(loss) if isinstance(loss, nn.Module) else {}


def with_tensors(loss: Loss, tensors: Tensors) -> Loss:
    """The loss with other values of its tensors."""
    if not isinstance(loss, nn.Module):
        return loss
    return lambda *given: torch.func.functional_call(loss, dict(tensors), given)


def _plain(module: nn.Module) -> tuple[tuple[str, Any], ...]:
    own = {name: value for name, value in vars(module).items() if name not in OF_EVERY_MODULE}
    for name, value in own.items():
        if not isinstance(value, PLAIN):
            raise UnrecordableError(
                f"the task's loss, a {type(module).__name__}, keeps `{name}`, a {type(value).__name__}: only what is a buffer or "
                "a plain value is seen to be the same from task to task"
            )
    return tuple(own.items())
