"""SVD layers with a nonlinearity between the factors: x → N g φ(diag(σ) C x) + b.

The factors are those of `parametrised.SVD`, and `weight` is N diag(σ) C as there: what the layer would be were φ the identity.
The gain g of φ keeps the size of what goes through, so that a scheme of initialisation means what it means for a plain layer.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from taskshift.nets.activations import ActivationName, activation_module, activation_of


class Sandwich(nn.Module):
    """A layer whose inputs go through its weight's factors one after the other, and through a nonlinearity between them.

    It goes before the layer's own class among the bases, and wants its weight written by `parametrised.SVD`.
    """

    def __init__(self, *positional: Any, between: ActivationName, **options: Any):
        super().__init__(*positional, **options)
        self.gain = activation_of(between).gain
        self.between = activation_module(between, min(self.weight.shape[0], self.weight[0].numel()))

    def factors(self) -> tuple[Tensor, Tensor]:
        """diag(σ) C [r, fan-in], and N g [units, r]."""
        written = self.parametrizations.weight
        return written.original1[:, None] * written.original2, written.original0 * self.gain


class SandwichLinear(Sandwich, nn.Linear):
    """A linear layer of two factors."""

    def forward(self, inputs: Tensor) -> Tensor:
        """[…, fan-in] → […, units]."""
        first, second = self.factors()
        return F.linear(self.between(F.linear(inputs, first)), second, self.bias)


class SandwichConv2d(Sandwich, nn.Conv2d):
    """A convolution to as many channels as its weight has singular values, then one of 1×1."""

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, C, H, W] → [B, units, …]."""
        first, second = self.factors()
        maps = self._conv_forward(inputs, first.unflatten(1, (self.in_channels, *self.kernel_size)), None)
        return F.conv2d(self.between(maps), second[:, :, None, None], self.bias)
