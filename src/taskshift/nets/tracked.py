"""Layers that divide their inputs by how large they are: by the batch in train mode, by what was seen so far in eval mode."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM, EPS = 0.1, 1e-5  # as batch norm's


class TracksInputs(nn.Module):
    """A layer of inputs over their root mean square: the batch's in train mode, a running average's in eval mode.

    It goes before the layer's own class among the bases.
    """

    mean_square: Tensor

    def __init__(self, *positional: Any, **options: Any):
        super().__init__(*positional, **options)
        self.register_buffer("mean_square", torch.ones(()))

    def forward(self, inputs: Tensor) -> Tensor:
        """What the layer gives for the scaled inputs; in train mode the running average follows."""
        seen = self.mean_square
        if self.training:
            seen = inputs.square().mean()
            with torch.no_grad():
                self.mean_square.lerp_(seen.detach().to(self.mean_square), MOMENTUM)
        return super().forward(inputs * (seen + EPS).rsqrt())


class TrackedLinear(TracksInputs, nn.Linear):
    """A linear layer of inputs that were scaled so."""


class TrackedConv2d(TracksInputs, nn.Conv2d):
    """A convolution of inputs that were scaled so."""
