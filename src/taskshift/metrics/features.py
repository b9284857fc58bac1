"""What a net's hidden layers pass on: seen while it runs, whatever way its activations are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from loss_landscape.units.calls import CallWatch, Place, modules_at_work
from taskshift.metrics.traced_features import TracedFeatures, last_traced, traced_features

RECTIFIERS = {"relu", "relu6", "leaky_relu", "prelu", "rrelu", "threshold", "elu", "selu", "celu", "softplus", "glu"}
SMOOTH = {"gelu", "silu", "mish", "hardswish", "tanhshrink", "softshrink", "hardshrink"}
SQUASHING = {"tanh", "hardtanh", "sigmoid", "hardsigmoid", "logsigmoid", "softsign"}
ACTIVATIONS = frozenset(RECTIFIERS | SMOOTH | SQUASHING)
CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
LAYERS = CONVOLUTIONS | {"linear", "bilinear"}

T = TypeVar("T")


@dataclass(frozen=True)
class Features:
    """One activation's outputs [B, …]. They may be overwritten later: take from them what is wanted at once."""

    layer: str  # the module that called it, and the function where that module is no layer of torch's
    function: str
    outputs: Tensor
    unit_axis: int  # where its units lie, by a trace; without one 1 after a convolution, else the last

    def as_matrix(self) -> Tensor:
        """[B, d], one row an example: a convolution's channels and positions are columns alike."""
        return self.outputs.flatten(1)


def of_each_layer(net: nn.Module, inputs: Tensor, reduce: Callable[[Features], T]) -> dict[str, T]:
    """`reduce` of each hidden layer's features while `net(inputs)` runs, by layer, in the order of the calls.

    Features are the outputs of activations, called as modules or as functions, or written out where a trace of the net shows
    them; in a net that has none, those of its linear layers and convolutions. What the net returns is no feature. Needs no help
    from the net; costs one forward pass, and for the first net of its kind a trace and another pass.
    """
    guess = last_traced(net, inputs)
    watch = _watched(net, inputs, _watch_of(guess, reduce))
    known = traced_features(net, inputs, ACTIVATIONS, called=tuple(watch.functions))
    if known is not guess:
        watch = _watched(net, inputs, _watch_of(known, reduce))
    if known is not None and not watch.found:
        watch = _watched(net, inputs, _watch_of(None, reduce))
    return watch.found or _watched(net, inputs, _Watch(reduce, lambda _, function: function in LAYERS)).found


def _watch_of(known: TracedFeatures | None, reduce: Callable[[Features], T]) -> _Watch:
    """By what is known of the net's calls, else by their names."""
    if known is None:
        return _Watch(reduce, lambda _, function: function in ACTIVATIONS)
    return _Watch(reduce, known.is_feature, known.places)


@torch.no_grad()
def _watched(net: nn.Module, inputs: Tensor, watch: _Watch) -> _Watch:
    with modules_at_work(net) as watch.modules, CallWatch(watch.see):
        watch.forget(net(inputs))
    return watch


class _Watch:
    """Reduces the outputs of those calls of torch functions that `is_feature` picks by number and function.

    `places` has where the units of a call's output lie, as far as that is known.
    """

    def __init__(
        self,
        reduce: Callable[[Features], Any],
        is_feature: Callable[[int, str], bool],
        places: Mapping[int, Place | None] = MappingProxyType({}),
    ):
        self.found: dict[str, Any] = {}
        self.functions: list[str] = []  # that were called
        self.modules: list[tuple[str, nn.Module]] = []  # that are being called, the innermost last
        self._reduce, self._is_feature, self._place_of = reduce, is_feature, places
        self._outputs: dict[str, Tensor] = {}
        self._unit_axis = -1

    def see(self, function: str, outputs: Any) -> None:
        """Take what is wanted of the outputs of a call."""
        number = len(self.functions)
        self.functions.append(function)
        if function in LAYERS:
            self._unit_axis = 1 if function in CONVOLUTIONS else -1
        if self._is_feature(number, function) and outputs.dim() > 1:
            layer = self._unused(self._layer(function))
            self.found[layer] = self._reduce(Features(layer, function, *self._by_unit(number, outputs)))
            self._outputs[layer] = outputs

    def forget(self, returned: Any) -> None:
        """Leave out what the net returned."""
        self.found = {layer: found for layer, found in self.found.items() if self._outputs[layer] is not returned}

    def _by_unit(self, number: int, outputs: Tensor) -> tuple[Tensor, int]:
        """The outputs, their places for one unit in a dimension of their own, and the dimension of the units."""
        place = self._place_of.get(number)
        if place is None:
            return outputs, self._unit_axis
        if outputs.shape[place.dim] > place.size:
            return outputs.unflatten(place.dim, (place.size, -1)), place.dim
        return outputs, -1 if place.dim == outputs.dim() - 1 else place.dim

    def _layer(self, function: str) -> str:
        path, module = self.modules[-1]
        if path and type(module).__module__.startswith("torch.nn."):
            return path
        return f"{path}.{function}" if path else function

    def _unused(self, name: str) -> str:
        """`name`, numbered from the second call at the same place on."""
        number, numbered = 1, name
        while numbered in self.found:
            number += 1
            numbered = f"{name}_{number}"
        return numbered
