"""Vectors to move along."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from loss_landscape.blockwise import norm, product_of
from loss_landscape.nested import as_tensor
from loss_landscape.results.info import DirectionInfo
from loss_landscape.results.result import Result, array


@dataclass(frozen=True, eq=False, repr=False)
class Directions(Result, Sequence[Tensor]):
    """Vectors [P] to move along, one for each axis, and in `info` how they came about.

    `vectors` are the axes. Of those made by hand `info` has the norms and the cosine alone; its JSON form is taken as well.

    >>> axes = Directions((torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])))
    >>> axes
    Directions(2 × [2], custom, norms 5, 2, cosine 0.8)
    >>> axes.info.norms
    (5.0, 2.0)
    """

    vectors: tuple[Tensor, ...]
    info: DirectionInfo = DirectionInfo()

    def __post_init__(self) -> None:
        vectors = tuple(torch.as_tensor(as_tensor(vector)) for vector in self.vectors)
        if any(vector.shape != vectors[0].shape for vector in vectors):
            raise ValueError(f"expected vectors of one length, got {[list(vector.shape) for vector in vectors]}")
        object.__setattr__(self, "vectors", vectors)
        info = DirectionInfo.from_json(self.info) if isinstance(self.info, Mapping) else self.info
        if not info.norms:
            norms = tuple(norm(vector) for vector in self.vectors)
            info = replace(info, norms=norms, cosine=largest_cosine(self.vectors))
        object.__setattr__(self, "info", info)

    @property
    def meta(self) -> dict[str, Any]:
        """`info` in its JSON form."""
        return self.info.to_json()

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Tensor, ...]: ...

    def __getitem__(self, index: int | slice) -> Tensor | tuple[Tensor, ...]:
        return self.vectors[index]

    def __len__(self) -> int:
        return len(self.vectors)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.vectors)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """`vectors` [D, P], and `info` as JSON."""
        return {"vectors": array(torch.stack(self.vectors)), "info": np.array(json.dumps(self.meta))}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Directions:
        """The directions of which `to_arrays` made these `arrays`."""
        vectors = tuple(torch.from_numpy(arrays["vectors"]).unbind())
        return cls(vectors, DirectionInfo.from_json(json.loads(str(arrays["info"]))))

    def __repr__(self) -> str:
        norms = ", ".join(f"{norm:.3g}" for norm in self.info.norms)
        size = len(self.vectors[0]) if self.vectors else 0
        told = f", {self.info.not_moved_note}" if self.info.not_moved else ""
        return f"Directions({len(self)} × [{size}], {self.info.kind}, norms {norms}, cosine {self.info.cosine:.2g}{told})"


def largest_cosine(vectors: Sequence[Tensor]) -> float:
    """The cosine between two of `vectors` of the largest size; 0 for a single one."""
    units = [partial(_unit_part, vector, norm(vector)) for vector in vectors]
    cosines = [product_of(len(vectors[0]), a, b) for i, a in enumerate(units) for b in units[:i]]
    return max(cosines, key=abs, default=0.0)


def _unit_part(vector: Tensor, length: float, block: slice) -> Tensor:
    return vector[block].double() / length
