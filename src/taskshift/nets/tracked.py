"""Layers that divide their inputs by how large they are: by the batch in train mode, by what was seen so far in eval mode."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM, EPS = 0.1, 1e-5  # as batch norm's


class TracksInputs:
    """The mean square of all inputs, by the batch in train mode, by a running average in eval mode."""

    mean_square: Tensor
    training: bool

    def scaled(self, inputs: Tensor) -> Tensor:
        """The inputs with a mean square of about 1; in train mode the running average follows."""
        seen = self.mean_square
        if self.training:
            seen = inputs.square().mean()
            with torch.no_grad():
                self.mean_square.lerp_(seen.detach().to(self.mean_square), MOMENTUM)
        return inputs * (seen + EPS).rsqrt()


class TrackedLinear(TracksInputs, nn.Linear):
    """A linear layer of inputs that were scaled so."""

    def __init__(self, *positional: Any, **options: Any):
        super().__init__(*positional, **options)
        self.register_buffer("mean_square", torch.ones(()))

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, fan_in] → [B, width]."""
        return super().forward(self.scaled(inputs))


class TrackedConv2d(TracksInputs, nn.Conv2d):
    """A convolution of inputs that were scaled so."""

    def __init__(self, *positional: Any, **options: Any):
        super().__init__(*positional, **options)
        self.register_buffer("mean_square", torch.ones(()))

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, C, H, W] → [B, channels, H', W']."""
        return super().forward(self.scaled(inputs))
