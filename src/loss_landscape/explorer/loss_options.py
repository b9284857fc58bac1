"""The options by which a loss is put together, one list of them for the Writer and the Explorer."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict

from torch import Tensor, nn

from loss_landscape.arguments import as_finite, as_whole, require_callable_as

ModelMode = Literal["eval", "train"]


class LossKeywords(TypedDict, total=False):
    """The same as keywords, for type checkers and editors."""

    regularizer: Callable[[nn.Module], Tensor] | None
    regularizer_weight: float
    custom_loss_fn: Callable[..., Tensor] | None
    model_mode: ModelMode
    max_batches: int | None
    pre_batch_hook: Callable[[Any], Any] | None
    post_batch_hook: Callable[[Any, Any, Any], Tensor] | None
    batch_weight: Callable[[Any], float] | None


@dataclass(frozen=True)
class LossOptions:
    """What is added to, or put in the place of, a plain loss over all data.

    `regularizer(model)` times `regularizer_weight` is added once to the mean over the data. `custom_loss_fn` is a loss of (model,
    inputs, targets), or of (model, batch) where batches are no pairs. `pre_batch_hook(batch)` changes a batch before it is used;
    what it draws is the same each time. `post_batch_hook(outputs, inputs, targets)` is the loss in the place of loss_fn.
    `max_batches` (None: all) are read once and kept. `model_mode` "train" has dropout active and batch norm by each batch's own
    statistics. `batch_weight(batch)` is what a batch's loss divides by, for losses that are no mean over examples.
    """

    regularizer: Callable[[nn.Module], Tensor] | None = None
    regularizer_weight: float = 1.0
    custom_loss_fn: Callable[..., Tensor] | None = None
    model_mode: ModelMode = "eval"
    max_batches: int | None = 10
    pre_batch_hook: Callable[[Any], Any] | None = None
    post_batch_hook: Callable[[Any, Any, Any], Tensor] | None = None
    batch_weight: Callable[[Any], float] | None = None

    def __post_init__(self) -> None:
        if self.model_mode not in ("eval", "train"):
            raise ValueError(f"model_mode must be 'eval' or 'train', got {self.model_mode!r}")
        if self.max_batches is not None:
            count = as_whole(self.max_batches, "max_batches", least=1, of="batches, or None for all data")
            object.__setattr__(self, "max_batches", count)
        as_finite(self.regularizer_weight, "regularizer_weight")
        for name, given in (("regularizer", "model"), ("pre_batch_hook", "batch"), ("batch_weight", "batch")):
            if getattr(self, name) is not None:
                require_callable_as(getattr(self, name), name, given)


def options_from(keywords: LossKeywords) -> LossOptions:
    """The options that these keywords name; TypeError, with what was meant, for others."""
    known = [each.name for each in fields(LossOptions)]
    for name in keywords:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise TypeError(f"there is no argument {name!r}; {meant}the loss takes {', '.join(known)}")
    return LossOptions(**keywords)
