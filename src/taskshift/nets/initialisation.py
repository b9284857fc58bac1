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
from math import sqrt
from typing import Literal, get_args

from torch import Tensor, nn

from taskshift.nets.activations import ActivationName

InitializationName = Literal[
    "default", "kaiming_uniform", "kaiming_normal", "xavier_uniform", "xavier_normal", "lecun_normal", "orthogonal"
]

GAINS: dict[str, float] = {
    "identity": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": sqrt(2),
    "leaky_relu": sqrt(2 / (1 + 0.01**2)),
    "selu": 1.0,  # its fixed point has variance 1 with weights of variance 1/fan_in (Klambauer et al. 2017)
    # 1/sqrt(E[φ(z)²]) for a standard normal z, by quadrature: the gain under which the second moment is kept, as √2 is relu's
    "elu": 1.2451983,
    "gelu": 1.5335304,
    "silu": 1.6765325,
}
"""What a weight's standard deviation is multiplied by; where torch's `calculate_gain` has one, the same, but for selu."""

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
    for layer in net.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            if not isinstance(layer.weight, nn.Parameter):  # weight norm and the like compute it anew from what is below it
                raise ValueError(
                    f"initialization={initialization!r} cannot draw the weight of a {type(layer).__name__} that is computed from "
                    "other parameters; draw it before it is parametrised, or give default"
                )
            SCHEMES[initialization](layer.weight.data, 1.0 if layer is head else GAINS[activation])
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
