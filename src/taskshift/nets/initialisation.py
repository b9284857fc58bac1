"""How a net's weights are drawn before training.

| name | distribution of one weight |
|---|---|
| default | what the layer's own class draws (torch: uniform, variance 1/(3·fan_in), biases too) |
| kaiming_normal, kaiming_uniform | variance gain²/fan_in (He et al. 2015) |
| xavier_normal, xavier_uniform | variance 2·gain²/(fan_in + fan_out) (Glorot and Bengio 2010) |
| lecun_normal | variance 1/fan_in, whatever the activation (the one that SELU nets are made for) |
| orthogonal | gain times a matrix with orthonormal rows or columns (Saxe et al. 2014) |

All but `default` set biases to 0. Norm layers keep scale 1 and shift 0.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from taskshift.nets.activations import ActivationName, activation_of
from taskshift.nets.tracked import TracksInputs

InitializationName = Literal[
    "default", "kaiming_uniform", "kaiming_normal", "xavier_uniform", "xavier_normal", "lecun_normal", "orthogonal"
]

Draw = Callable[[Tensor, float], Tensor]
SCHEMES: dict[str, Draw] = {
    # gain/√fan_in is said through kaiming's `linear` and a factor, since torch knows no gain for elu, gelu and silu
    "kaiming_uniform": lambda weight, gain: nn.init.kaiming_uniform_(weight, nonlinearity="linear").mul_(gain),
    "kaiming_normal": lambda weight, gain: nn.init.kaiming_normal_(weight, nonlinearity="linear").mul_(gain),
    "xavier_uniform": lambda weight, gain: nn.init.xavier_uniform_(weight, gain),
    "xavier_normal": lambda weight, gain: nn.init.xavier_normal_(weight, gain),
    "lecun_normal": lambda weight, gain: nn.init.kaiming_normal_(weight, nonlinearity="linear"),
    "orthogonal": lambda weight, gain: nn.init.orthogonal_(weight, gain),
}


def initialise(net: nn.Module, initialization: InitializationName, activation: ActivationName, *, head: nn.Module) -> None:
    """Draw the weights of every linear and convolutional layer anew, from torch's default generator.

    `head`, whose outputs no activation follows, gets gain 1; the other layers get the gain of `activation`.
    """
    if initialization == "default":
        return
    if initialization not in SCHEMES:
        names = ", ".join(get_args(InitializationName))
        raise ValueError(f"initialization={initialization!r} is not known; choose one of {names}")
    gain = activation_of(activation).gain
    for layer in net.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            own = 1.0 if layer is head or isinstance(layer, TracksInputs) else gain  # its inputs have a mean square of 1 anyway
            drawn = SCHEMES[initialization](layer.weight.detach().clone(), own)
            _set_weight(layer, drawn, initialization)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@torch.no_grad()
def _set_weight(layer: nn.Linear | nn.Conv2d, drawn: Tensor, initialization: str) -> None:
    """Give `layer` this weight, through what it is parametrised by where it is."""
    if isinstance(layer.weight, nn.Parameter):
        layer.weight.copy_(drawn)
        return
    if is_parametrized(layer, "weight"):
        with suppress(NotImplementedError, RuntimeError, ValueError):  # of parametrisations that have no inverse, or not there
            layer.weight = drawn
        if torch.allclose(layer.weight, drawn, rtol=0, atol=1e-4 * float(drawn.abs().max())):
            return
    raise ValueError(
        f"initialization={initialization!r} cannot draw the weight of a {type(layer).__name__} that is computed from "
        "other parameters; draw it before it is parametrised, or give default"
    )
