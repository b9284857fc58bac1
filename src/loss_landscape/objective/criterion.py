"""What a loss function divides by, read from the function itself."""

from __future__ import annotations

import copy
import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from loss_landscape.nested import copied, map_tensors, tensors_in
from loss_landscape.objective.outside_reads import MemoryWatch

SHORT_INTEGERS = (torch.int8, torch.int16, torch.int32)

LossFunction = Callable[[Any, Any], Tensor]


class Criterion:
    """`loss_fn(outputs, targets)`, evaluated in float64, with its denominator.

    A float32 criterion at a trained minimum is mostly rounding: its sum of small numbers is taken in float64 instead, its own
    tensors (class weights) too. A function that can't work in float64, because it closes over float32 tensors, is left as it is.
    """

    def __init__(self, loss_fn: LossFunction):
        if not callable(loss_fn):
            raise TypeError(f"loss_fn must be callable with (outputs, targets), got {type(loss_fn).__name__}")
        self.reduction = reduction_of(loss_fn)
        if self.reduction == "none":
            raise ValueError("loss_fn has reduction='none' and gives no scalar; give it reduction='mean' or 'sum'")
        self.function = copy.deepcopy(loss_fn) if isinstance(loss_fn, nn.Module) else loss_fn
        self._doubles = True
        self._writes = False  # into what it is given

    @property
    def is_exact(self) -> bool:
        """Whether it is evaluated in float64."""
        return self._doubles

    def prepared(self, outputs: Any, targets: Any) -> Criterion:
        """The same on the outputs' device, in float64 where the function works in it."""
        twin = copy.copy(self)
        twin._settle(outputs, targets)
        return twin

    def _settle(self, outputs: Any, targets: Any) -> None:
        device = outputs.device if isinstance(outputs, Tensor) else None
        self._doubles = device is None or device.type != "mps"
        if isinstance(self.function, nn.Module) and device is not None:
            self.function = self.function.to(device)
            if self._doubles:
                self.function = self.function.double()
        if self._doubles and not isinstance(self.function, nn.Module):
            with torch.no_grad():
                try:
                    self(outputs, targets)
                except (RuntimeError, TypeError):
                    self._doubles = False

    def watched(self, outputs: Any, targets: Any, labels: Mapping[Any, Tensor]) -> MemoryWatch:
        """Call it once, to see whether it writes into what it is given, and what it reads of the tensors of these `labels`."""
        given = copied((self._cast(outputs), self._cast(_with_long_labels(targets))))
        own = {("given", index): tensor for index, tensor in enumerate(tensors_in(given))}
        with MemoryWatch({**own, **labels}) as watch:
            self.function(*given)
        self._writes = not own.keys().isdisjoint(watch.written)
        return watch

    def on(self, device: torch.device) -> Criterion:
        """The same on another device."""
        twin = copy.copy(self)
        if isinstance(self.function, nn.Module):
            twin.function = copy.deepcopy(self.function).to(device)
        for made in ("_with_sum", "_unweighted"):
            twin.__dict__.pop(made, None)
        return twin

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        """The loss of a batch, a scalar."""
        return self.function(self._cast(outputs), self._cast(_with_long_labels(targets)))

    def total(self, outputs: Any, targets: Any) -> Tensor:
        """The loss summed instead of averaged."""
        return self._with_sum(self._cast(outputs), self._cast(_with_long_labels(targets)))

    def denominator(self, outputs: Any, targets: Any) -> float | None:
        """What the mean over this batch divides by (0 where nothing counts), or None where the function does not say."""
        if self.reduction is None or not isinstance(outputs, Tensor):
            return None
        ratio = self._ratio(outputs, targets)
        if len(outputs) > 1 and math.isclose(ratio, 1.0, rel_tol=1e-9):
            twice = self._ratio(torch.cat([outputs, outputs]), map_tensors(lambda t: torch.cat([t, t]), targets))
            if not math.isclose(twice, 2.0, rel_tol=1e-9):
                return None  # it has the attribute but does not obey it
        return ratio

    def example_losses(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Each example's loss summed [B], differentiable, and what the square of its gradient counts [B], in a list.

        That is 1 over the batch's denominator; an example's class weight, which is in its loss, is taken out of the square once.
        """
        if self.reduction is None:
            losses = torch.func.vmap(lambda o, t: self(o[None], t[None]))(outputs, targets)
            return losses, [torch.full_like(losses.detach(), 1 / len(losses))]
        sums = torch.func.vmap(lambda o, t: self.total(o[None], t[None]))(outputs, targets)
        if self.reduction == "sum":
            return sums, [torch.ones_like(sums.detach())]
        shares, unweighted = (self._shares(criterion, outputs, targets).to(sums) for criterion in (self, self._unweighted))
        weights = torch.where(shares > 0, shares / unweighted.clamp(min=1e-300), torch.ones_like(shares))
        return sums, [torch.where(shares > 0, 1 / weights, 0) / shares.sum()]

    @staticmethod
    def _shares(criterion: Criterion, outputs: Tensor, targets: Tensor) -> Tensor:
        """What each example's own mean divides by, [B]."""
        singles = [slice(i, i + 1) for i in range(len(outputs))]
        return torch.tensor([criterion._ratio(outputs[one], targets[one]) for one in singles])

    @functools.cached_property
    def _unweighted(self) -> Criterion:
        """The same without class weights; itself where it has none."""
        if isinstance(self.function, functools.partial) and self.function.keywords.get("weight") is not None:
            plain: Any = functools.partial(self.function.func, *self.function.args, **self.function.keywords | {"weight": None})
        elif isinstance(self.function, nn.Module) and getattr(self.function, "weight", None) is not None:
            plain = copy.deepcopy(self.function)
            plain.weight = None
        else:
            return self
        twin = copy.copy(self)
        twin.__dict__.pop("_with_sum", None)
        twin.function = plain
        return twin

    @functools.cached_property
    def _with_sum(self) -> LossFunction:
        if not hasattr(self.function, "reduction"):
            function: Callable[..., Tensor] = self.function
            return functools.partial(function, reduction="sum")
        summed = copy.copy(self.function)
        summed.reduction = "sum"
        return summed

    @torch.no_grad()
    def _ratio(self, outputs: Tensor, targets: Any) -> float:
        """Sum over mean. It does not depend on the outputs, so where these give 0 or no number, noise stands in."""
        noise = torch.rand(outputs.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        total = 0.0
        for trial in (outputs, noise.to(outputs)):
            mean, total = float(self(trial, targets)), float(self.total(trial, targets))
            if math.isfinite(mean) and math.isfinite(total) and mean != 0:
                return total / mean
        return 0.0 if total == 0 else float(len(outputs))

    def _cast(self, values: Any) -> Any:
        if self._writes:
            values = copied(values)
        if not self._doubles:
            return values
        return map_tensors(lambda t: t.double() if t.is_floating_point() else t, values)


def _with_long_labels(targets: Any) -> Any:
    """Integers as int64: torch's criteria take no shorter ones."""
    return map_tensors(lambda t: t.long() if t.dtype in SHORT_INTEGERS else t, targets)


def reduction_of(loss_fn: LossFunction) -> str | None:
    """The function's `reduction`, an attribute or an argument's default, or None."""
    attribute = getattr(loss_fn, "reduction", None)
    if isinstance(attribute, str):
        return attribute
    if isinstance(loss_fn, nn.Module):
        return None
    try:
        parameter = inspect.signature(loss_fn).parameters.get("reduction")
    except ValueError:
        return None
    return parameter.default if parameter is not None and isinstance(parameter.default, str) else None
