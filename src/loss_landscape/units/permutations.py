"""Which units of a net may change places: permutations of its weights that leave its function as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Part:
    """A factor of a tensor's dimension: `size` places, which are the units of a group, or of none."""

    size: int
    group: int | None


@dataclass(frozen=True)
class UnitGroups:
    """Sets of units that are reordered together: a layer's outputs, their norm, every layer that reads them.

    Those that a residual connection adds up are one group; a flattened map's channels are blocks of a linear layer's inputs.
    """

    sizes: tuple[int, ...]  # how many units each group has
    parts: Mapping[str, tuple[Part, ...]]  # of each tensor in the state dict, all dimensions' parts in order
    fixed: Mapping[str, str]  # why a tensor is not reordered at all

    def identity(self) -> list[Tensor]:
        """The permutations that leave everything where it is."""
        return [torch.arange(size) for size in self.sizes]

    def members(self, group: int) -> list[tuple[str, int]]:
        """The tensors that hold the units of a group, each with the number of the part that counts them."""
        return [(name, place) for name, parts in self.parts.items() for place, part in enumerate(parts) if part.group == group]

    def permuted(self, state: State, permutations: Sequence[Tensor]) -> dict[str, Tensor]:
        """The state dict with unit `permutations[g][i]` of each group g in place i."""
        return {
            name: self.reordered(name, tensor, permutations).reshape(tensor.shape) if name in self.parts else tensor
            for name, tensor in state.items()
        }

    def unfolded(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor of the state dict with a dimension for each of its parts."""
        return tensor.reshape([part.size for part in self.parts[name]])

    def reordered(self, name: str, tensor: Tensor, permutations: Sequence[Tensor], but: int | None = None) -> Tensor:
        """A tensor unfolded and reordered along all its parts, the one numbered `but` left out."""
        tensor = self.unfolded(name, tensor)
        for place, part in enumerate(self.parts[name]):
            if part.group is not None and place != but:
                tensor = tensor.index_select(place, permutations[part.group].to(tensor.device))
        return tensor
