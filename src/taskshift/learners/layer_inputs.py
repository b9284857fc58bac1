"""What layers are given, as vectors: their running means and second moments."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from taskshift.learners.part import Tensors, input_of


@dataclass(frozen=True)
class LayerInput:
    """The vectors that a linear layer or convolution multiplies with its rows: examples, places and, of a map, patches."""

    module: str
    size: int
    kernel: tuple[tuple[int, ...], ...] = ()  # a convolution's size, dilation, padding, stride
    diagonal: bool = False  # second moments of single entries alone

    @classmethod
    def of(cls, net: nn.Module, weight: str, *, diagonal: bool) -> LayerInput | None:
        """That of a layer by its weight's name; None where it is neither linear nor a plain 2-D convolution."""
        name, _, own = weight.rpartition(".")
        layer = net.get_submodule(name)
        if own != "weight":
            return None
        if isinstance(layer, nn.Linear):
            return cls(name, layer.in_features, diagonal=diagonal)
        plain = isinstance(layer, nn.Conv2d) and layer.groups == 1 and not isinstance(layer.padding, str)
        if not plain or layer.padding_mode != "zeros":
            return None
        return cls(name, layer.weight[0].numel(), (layer.kernel_size, layer.dilation, layer.padding, layer.stride), diagonal)

    @property
    def reading(self) -> str:
        return input_of(self.module)

    def vectors(self, features: Tensors) -> Tensor:
        """[m, size], an input a row."""
        given = features[self.reading]
        if self.kernel:
            return nn.functional.unfold(given, *self.kernel).movedim(1, 2).flatten(0, 1)
        return given.flatten(0, -2)

    def first(self, like: Tensor) -> dict[str, Tensor]:
        """Moments before the first step."""
        shape = (self.size,) if self.diagonal else (self.size, self.size)
        return {"steps": like.new_zeros(()), "mean": like.new_zeros(self.size), "second": like.new_zeros(shape)}

    def followed(self, moments: Tensors, features: Tensors, decay: Tensor) -> dict[str, Tensor]:
        """Running means with this step's inputs, a batch a share 1 − decay."""
        x = self.vectors(features)
        second = x.square().mean(dim=0) if self.diagonal else x.mT @ x / len(x)
        return {
            "steps": moments["steps"] + 1,
            "mean": torch.lerp(x.mean(dim=0), moments["mean"], decay),
            "second": torch.lerp(second, moments["second"], decay),
        }

    def metric(self, moments: Tensors, decay: Tensor, *, centred: bool) -> tuple[Tensor, Tensor]:
        """The inputs' mean [size], and their covariance or second moment, corrected for the averages' beginning at 0."""
        correction = -torch.expm1(moments["steps"] * decay.log())
        mean, second = moments["mean"] / correction, moments["second"] / correction
        if not centred:
            return mean, second
        return mean, (second - mean.square()).clamp_min(0) if self.diagonal else second - torch.outer(mean, mean)


def times(rows: Tensor, metric: Tensor) -> Tensor:
    """Rows [n, d] times a metric [d, d], or its diagonal [d]."""
    return rows @ metric if metric.dim() == 2 else rows * metric
