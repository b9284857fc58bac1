"""Which units of a net may change places: permutations of its weights that leave its function as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Part:
    """A factor of a tensor's dimension: `size` places, which are the units of a group, or of none."""

    size: int
    group: int | None


@dataclass(frozen=True, repr=False)
class UnitGroups:
    """Sets of units that are reordered together: a layer's outputs, their norm, every layer that reads them.

    Those that a residual connection adds up are one group; a flattened map's channels are blocks of a linear layer's inputs.
    `sizes` are the numbers of units in each group, `parts` has the factors of all dimensions of each tensor of the state dict, in
    order, and `fixed` says why a tensor is not reordered at all.

    >>> from loss_landscape.units.permutations import Part
    >>> groups = UnitGroups((2,), {"weight": (Part(2, 0), Part(3, None))}, {})
    >>> groups.permuted({"weight": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])}, [torch.tensor([1, 0])])
    {'weight': tensor([[4., 5., 6.],
            [1., 2., 3.]])}
    """

    sizes: tuple[int, ...]
    parts: Mapping[str, tuple[Part, ...]]
    fixed: Mapping[str, str]

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
        """The `tensor` of the state dict called `name`, with a dimension for each of its parts."""
        return tensor.reshape([part.size for part in self.parts[name]])

    def reordered(self, name: str, tensor: Tensor, permutations: Sequence[Tensor], but: int | None = None) -> Tensor:
        """The `tensor` called `name`, unfolded and reordered by `permutations` along all its parts but the one numbered `but`."""
        tensor = self.unfolded(name, tensor)
        for place, part in enumerate(self.parts[name]):
            if part.group is not None and place != but:
                tensor = tensor.index_select(place, permutations[part.group].to(tensor.device))
        return tensor

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold, a part as its size and its group."""
        parts = {name: [[part.size, part.group] for part in parts] for name, parts in self.parts.items()}
        return {"sizes": list(self.sizes), "parts": parts, "fixed": dict(self.fixed)}

    @classmethod
    def from_json(cls, entries: Mapping[str, Any]) -> UnitGroups:
        """The groups of which `to_json` made these `entries`."""
        parts = {name: tuple(Part(size, group) for size, group in parts) for name, parts in entries["parts"].items()}
        return cls(tuple(entries["sizes"]), parts, entries["fixed"])

    def __repr__(self) -> str:
        return f"UnitGroups(sizes {self.sizes}, {len(self.parts) - len(self.fixed)} tensors, {len(self.fixed)} fixed)"
