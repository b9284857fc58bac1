"""How a net has to be called so that nothing of the user's is written or missed, found by calling it on the first batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from loss_landscape.nested import copied, tensors_in
from loss_landscape.objective.functional_net import FunctionalNet, Parameters, undisturbed
from loss_landscape.objective.held_draws import DrawWatch
from loss_landscape.objective.outside_reads import MemoryWatch

Run = Callable[[FunctionalNet, Parameters, Any], Any]
"""(net, parameters, batch) → what a loss needs of the net."""

MODE_DEPENDENT = (
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._NormBase,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.RReLU,
)


class NotEvaluableError(ValueError):
    """A net or a loss whose value at other parameters can't be known, or is another one at each call."""


class Rehearsal:
    """First calls of a private clone of `model` on `batch`, watched."""

    def __init__(self, model: nn.Module, batch: Any):
        self.model, self.batch = model, batch

    def rules_for(self, net: FunctionalNet, run: Run) -> tuple[FunctionalNet, Any]:
        """The net with the rules that its calls by `run` need, and what the call gives.

        Raises NotEvaluableError for a net that remembers its calls, and for tensors of the user's net that are read by a way that
        can't be followed.
        """
        watch, modules, (given, again, changed), drawn = self._watched(net, run)
        if changed and not _same(given, again):
            raise NotEvaluableError(
                f"the net remembers its calls: {', '.join(changed[:4])} of it changed in a call, and another call with the same "
                "parameters and inputs gave something else; set it anew at the start of forward, or in a batch_loss"
            )
        names = {label[1] for label in (*watch.written, *watch.reinterpreted) if label[0] == "parameter"}
        rules = replace(
            net.rules,
            copied=net.rules.copied | names,
            copied_batch=net.rules.copied_batch or any(label[0] == "batch" for label in watch.written),
        )
        rules = rules.with_strangers(watch.strangers.values()).with_draws(drawn)
        if outside := _outside(watch):
            return self._following(replace(net, rules=rules), run, outside, modules)
        return replace(net, rules=rules), given

    def require_no_reading(self, what: str, watch: MemoryWatch) -> None:
        """Raise NotEvaluableError where `what`, the user's loss, has read parameters of the net beside its outputs."""
        if names := _outside(watch):
            raise NotEvaluableError(
                f"{what} reads {_listed(names)} of the net itself, beside its outputs, and would not see it move; give what it "
                "adds as regularizer=f(model), or the whole as batch_loss=f(model, batch), to the Writer "
                "as custom_loss_fn="
            )

    def outside(self, net: FunctionalNet) -> dict[Hashable, Tensor]:
        """The tensors that a call must not read: those of the user's net, and those that the clone shares with it, by label."""
        return {("outside", f"{kind}{name}"): tensor for kind, name, tensor in self._named(net)}

    def _named(self, net: FunctionalNet) -> Iterator[tuple[str, str, Tensor]]:
        for kind, module in (("", self.model), (" ", net.module)):
            for name, tensor in chain(module.named_parameters(), module.named_buffers()):
                yield kind, name, tensor

    def _following(self, net: FunctionalNet, run: Run, names: list[str], modules: list[str]) -> tuple[FunctionalNet, Any]:
        if modules:
            raise NotEvaluableError(
                f"{', '.join(modules[:4])} of the net itself, in training mode, is called by a closure beside the copy that is "
                "evaluated; call model.eval() before, or use the model that is given to the loss"
            )
        pairs = {id(tensor): (tensor, name) for _, name, tensor in self._named(net)}
        net = replace(net, rules=replace(net.rules, outside=tuple(pairs.values())))
        watch, _, (given, _, _), _ = self._watched(net, run)
        if left := _outside(watch):
            raise NotEvaluableError(
                f"{_listed(left)} of the net itself is read by a view or a copy that was made outside the loss, and would not be "
                "seen to move; read it from the model that is given to the loss, or clone it if it is to stay as it is"
            )
        return net, given

    def _watched(
        self, net: FunctionalNet, run: Run
    ) -> tuple[MemoryWatch, list[str], tuple[Any, Any, list[str]], tuple[str, ...]]:
        batch, parameters = copied(self.batch), {name: p.clone() for name, p in net.parameters.items()}
        labels: dict[Hashable, Tensor] = {("parameter", name): p for name, p in parameters.items()}
        labels |= {("batch", index): tensor for index, tensor in enumerate(tensors_in(batch))}
        again = None
        with net.given.left_as_changed():
            with (
                undisturbed(net.device),
                DrawWatch(net.device) as drawn,
                _training_modules(self.model) as modules,
                MemoryWatch(labels | self.outside(net)) as watch,
            ):
                given = run(net, parameters, batch)
            changed, sources = net.given.changed(), drawn.sources + ("the net's own",) * net.given.has_drawn
            if changed:
                with undisturbed(net.device), DrawWatch(net.device):
                    again = run(net, {name: p.clone() for name, p in net.parameters.items()}, copied(self.batch))
        return watch, modules, (given, again, changed), sources


def _outside(watch: MemoryWatch) -> list[str]:
    return list(dict.fromkeys(str(label[1]).strip() for label in watch.read if label[0] == "outside"))


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:4])) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


@contextmanager
def _training_modules(model: nn.Module) -> Iterator[list[str]]:
    """A list that gets the names of `model`'s own modules that are called in training mode and look at it."""
    names, found = {id(module): name or "the whole" for name, module in model.named_modules()}, list[str]()

    def note(module: nn.Module, _: Any) -> None:
        if id(module) in names and module.training and _looks_at_mode(module):
            found.append(names[id(module)])

    handle = register_module_forward_pre_hook(note)
    try:
        yield found
    finally:
        handle.remove()


def _looks_at_mode(module: nn.Module) -> bool:
    if type(module).__module__.startswith("torch."):
        return isinstance(module, MODE_DEPENDENT)
    return inspect.isfunction(type(module).forward) and "training" in type(module).forward.__code__.co_names


def _same(first: Any, second: Any) -> bool:
    pairs = list(zip(tensors_in(first), tensors_in(second), strict=False))
    return all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-5, atol=1e-7, equal_nan=True) for a, b in pairs)
