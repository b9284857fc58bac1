"""Random changes to training batches: on their device, for each example its own, drawn from a generator."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from taskshift.data.labelled_data import Augmentation


class Augment(ABC):
    """What a config's `augment` block describes. The data finish it, since they know their black."""

    @abstractmethod
    def padded_with(self, black: Tensor) -> Augmentation:
        """The augmentation that paints what comes from outside the frame in `black` [C]."""


class CropAndFlip(Augment):
    """Moves every image by up to `padding` pixels either way on both axes, and mirrors every second one by chance.

    The usual augmentation of CIFAR (He et al. 2016, §4.2): padding 4, flips on. Mirrored digits are other digits: there
    set `flip: false`.
    """

    def __init__(self, padding: int = 4, flip: bool = True):
        if padding < 0:
            raise ValueError(f"padding={padding} was asked for; give the number of pixels, 0 or more")
        self.padding, self.flip = padding, flip

    def padded_with(self, black: Tensor) -> Augmentation:
        return _CropAndFlip(black, self.padding, self.flip)


class _CropAndFlip:
    def __init__(self, black: Tensor, padding: int, flip: bool):
        self.black, self.padding, self.flip = black, padding, flip

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """[B, C, H, W] → the same shape. Four numbers an example decide, whatever its content; no host sync."""
        batch, channels, height, width = inputs.shape
        device = inputs.device
        down, right = torch.randint(0, 2 * self.padding + 1, (2, batch, 1), generator=generator, device=device)
        rows = down + torch.arange(height, device=device)  # [B, H], into the padded image
        columns = right + torch.arange(width, device=device)  # [B, W]
        if self.flip:
            mirrored = torch.rand(batch, 1, generator=generator, device=device) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        examples = torch.arange(batch, device=device)
        planes = torch.arange(channels, device=device)
        return self._padded(inputs)[
            examples[:, None, None, None], planes[:, None, None], rows[:, None, :, None], columns[:, None, None, :]
        ]

    def _padded(self, inputs: Tensor) -> Tensor:
        batch, channels, height, width = inputs.shape
        self.black = self.black.to(inputs)  # kept there: to copy it for each batch would wait for the device each time
        frame = self.black.view(1, -1, 1, 1)
        canvas = frame.expand(batch, channels, height + 2 * self.padding, width + 2 * self.padding).clone()
        canvas[:, :, self.padding : self.padding + height, self.padding : self.padding + width] = inputs
        return canvas
