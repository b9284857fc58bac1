"""Which calls in a net's forward pass give its hidden layers' features, known by tracing it: once for all nets built alike."""

from __future__ import annotations

import logging
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from loss_landscape.graphs.tracing import UntraceableError
from loss_landscape.units.calls import Call, Place, calls_of

log = logging.getLogger(__name__)

MOST_KEPT = 64
"""Nets of so many kinds are known at a time."""


@dataclass(frozen=True)
class TracedFeatures:
    """What is known of a net: the functions that it calls, in order, and the calls whose outputs are features."""

    functions: tuple[str, ...]
    places: Mapping[int, Place | None]  # a call's number → where its units lie, None where they are not followed

    def is_feature(self, number: int, function: str) -> bool:
        """Whether the call of this number gives features, as long as it is of the function that it was."""
        return number in self.places and self.functions[number] == function


def last_traced(net: nn.Module, inputs: Tensor) -> TracedFeatures | None:
    """Where the features of the last net that is built like this one lie; it may call other functions than this one."""
    return next((known for known in reversed(_known(net, inputs).values()) if known is not None), None)


def traced_features(
    net: nn.Module, inputs: Tensor, activations: Collection[str], *, called: tuple[str, ...]
) -> TracedFeatures | None:
    """Where the features of a net that `called` these functions lie, of which some are known by name as `activations`.

    What these give is a feature unless something else is made of it before a weight reads it, as of the sigmoid in x · σ(x);
    and so is what any other call makes of units alone, place by place and not linearly, that a weight reads. None where the net
    cannot be traced, or does not always call the same functions.
    """
    known = _known(net, inputs)
    if called not in known:
        known[called] = _traced(net, inputs, activations)
        if known[called] is not None and known[called].functions != called:
            known.update(dict.fromkeys(known))  # nothing holds for such nets
            _tell(net, "it does not always call the same functions")
    return known[called]


_KNOWN: dict[Hashable, dict[tuple[str, ...], TracedFeatures | None]] = {}
"""Of nets that are built alike: by the functions that they call, for an activation may be any function that a net holds."""


def _known(net: nn.Module, inputs: Tensor) -> dict[tuple[str, ...], TracedFeatures | None]:
    key = _built(net, inputs)
    if key not in _KNOWN and len(_KNOWN) == MOST_KEPT:
        del _KNOWN[next(iter(_KNOWN))]
    return _KNOWN.setdefault(key, {})


def _built(net: nn.Module, inputs: Tensor) -> Hashable:
    """What nets built alike have in common."""
    modules = tuple((name, type(module)) for name, module in net.named_modules())
    tensors = tuple((name, tensor.shape, tensor.dtype) for name, tensor in net.state_dict().items())
    return modules, tensors, inputs.shape[1:], inputs.dtype


def _traced(net: nn.Module, inputs: Tensor, activations: Collection[str]) -> TracedFeatures | None:
    try:
        calls = calls_of(net, inputs[:2])
    except UntraceableError as error:
        _tell(net, str(error).partition(": ")[0])
        return None
    found = {number: call.place for number, call in enumerate(calls) if _is_feature(call, calls, activations)}
    return TracedFeatures(tuple(call.function for call in calls), found)


def _is_feature(call: Call, calls: tuple[Call, ...], activations: Collection[str]) -> bool:
    if call.function in activations:
        return call.is_read or not call.next or any(calls[number].function in activations for number in call.next)
    return call.is_nonlinear and call.is_read


def _tell(net: nn.Module, why: str) -> None:
    log.warning("the features of %s are those of the activations that torch has a name for: %s", type(net).__name__, why)
