"""Which tensors of a net a displacement moves, and how they lie in one vector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class ParameterLayout:
    """The moving parameters in the order of `model.parameters()`, and their places in a vector [P].

    Frozen parameters, and those the loss does not depend on, have no place; a tied one has a single place under its first name.
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    unit_dims: tuple[int, ...]  # the dimension that counts output units: 0, or 1 in a transposed convolution
    in_norm_layer: tuple[bool, ...]

    @classmethod
    def of(cls, model: nn.Module, names: Iterable[str]) -> ParameterLayout:
        """The layout of the parameters called `names`, in that order."""
        names = tuple(names)
        owners = [model.get_submodule(name.rpartition(".")[0]) for name in names]
        return cls(
            names=names,
            shapes=tuple(model.get_parameter(name).shape for name in names),
            unit_dims=tuple(
                int(isinstance(owner, TRANSPOSED) and model.get_parameter(name).dim() > 1)
                for owner, name in zip(owners, names, strict=True)
            ),
            in_norm_layer=tuple(isinstance(owner, NORM_LAYERS) for owner in owners),
        )

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many entries each parameter has."""
        return tuple(shape.numel() for shape in self.shapes)

    @cached_property
    def size(self) -> int:
        """The length P of a vector."""
        return sum(self.sizes)

    @property
    def has_convolution(self) -> bool:
        """Whether a parameter has the shape of a convolution's weight."""
        return any(len(shape) > 2 for shape in self.shapes)

    def flatten(self, tensors: Mapping[str, Tensor] | Iterable[Tensor]) -> Tensor:
        """One vector [P] of `tensors`, one a parameter: a mapping by name (other names are ignored) or a sequence in order."""
        if isinstance(tensors, Mapping):
            absent = [name for name in self.names if name not in tensors]
            if absent:
                raise ValueError(f"expected a tensor for each of the {len(self.names)} parameters, but {absent[0]!r} is missing")
            tensors = [tensors[name] for name in self.names]
        tensors = list(tensors)
        if [t.shape for t in tensors] != list(self.shapes):
            raise ValueError(
                f"{self._misfit(tensors)}; they come in the order of model.parameters(), frozen and unused ones left out"
            )
        return torch.cat([t.reshape(-1) for t in tensors])

    def _misfit(self, tensors: Sequence[Tensor]) -> str:
        """What is wrong with tensors of other shapes, in words."""
        if len(tensors) != len(self.names):
            return f"expected a tensor for each of the {len(self.names)} parameters, got {len(tensors)}"
        pairs = zip(self.names, self.shapes, tensors, strict=True)
        name, shape, tensor = next(pair for pair in pairs if pair[2].shape != pair[1])
        return f"expected a tensor {list(shape)} for {name!r}, got {list(tensor.shape)}"

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Views of `vector` [..., P] by parameter name, [..., *shape]."""
        if vector.shape[-1] != self.size:
            raise ValueError(
                f"the vector has {vector.shape[-1]} entries but this surface moves {self.size} parameters; "
                "build it with surface.layout.flatten(...)"
            )
        parts, leading = vector.split(self.sizes, dim=-1), vector.shape[:-1]
        return {name: part.view(leading + shape) for name, shape, part in zip(self.names, self.shapes, parts, strict=True)}
