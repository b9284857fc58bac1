"""What a net's hidden layers pass on: seen while it runs, whatever way its activations are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

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
    unit_axis: int  # 1 after a convolution, else the last

    def as_matrix(self) -> Tensor:
        """[B, d], one row an example: a convolution's channels and positions are columns alike."""
        return self.outputs.flatten(1)


def of_each_layer(net: nn.Module, inputs: Tensor, reduce: Callable[[Features], T]) -> dict[str, T]:
    """`reduce` of each hidden layer's features while `net(inputs)` runs, by layer, in the order of the calls.

    Features are the outputs of activations, called as modules or as functions; in a net that calls none, those of its linear
    layers and convolutions. What the net returns is no feature. Needs no help from the net; costs one forward pass.
    """
    return _watched(net, inputs, reduce, ACTIVATIONS) or _watched(net, inputs, reduce, LAYERS)


@torch.no_grad()
def _watched(net: nn.Module, inputs: Tensor, reduce: Callable[[Features], T], functions: frozenset[str]) -> dict[str, T]:
    with _places(net) as places, _Watch(functions, places, reduce) as watch:
        returned = net(inputs)
    return {name: found for name, found in watch.found.items() if watch.outputs[name] is not returned}


class _Watch(TorchFunctionMode):
    """Sees every call of a torch function, outermost ones only: `nn.ReLU` and `functional.relu` each show up once."""

    def __init__(self, functions: frozenset[str], places: list[tuple[str, nn.Module]], reduce: Callable[[Features], Any]):
        super().__init__()
        self.found: dict[str, Any] = {}
        self.outputs: dict[str, Tensor] = {}
        self._functions, self._places, self._reduce = functions, places, reduce
        self._unit_axis = -1

    def __torch_function__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        name = function.__name__.strip("_")  # relu_, _threshold
        if name in LAYERS:
            self._unit_axis = 1 if name in CONVOLUTIONS else -1
        if name in self._functions and outputs.dim() > 1:
            layer = self._unused(self._place(name))
            self.found[layer] = self._reduce(Features(layer, name, outputs, self._unit_axis))
            self.outputs[layer] = outputs
        return outputs

    def _place(self, function: str) -> str:
        path, module = self._places[-1]
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


@contextmanager
def _places(net: nn.Module) -> Iterator[list[tuple[str, nn.Module]]]:
    """The modules that are being called, the innermost last."""
    stack: list[tuple[str, nn.Module]] = [("", net)]
    handles = []
    for path, module in net.named_modules():
        place = (path, module)
        handles.append(module.register_forward_pre_hook(lambda *_, place=place: stack.append(place)))
        handles.append(module.register_forward_hook(lambda *_: _drop(stack), always_call=True))
    try:
        yield stack
    finally:
        for handle in handles:
            handle.remove()


def _drop(stack: list[tuple[str, nn.Module]]) -> None:
    stack.pop()
