"""Curvature matrices of a loss surface, which know its parameters by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import overload

import numpy as np
from torch import Tensor

from loss_landscape.objective.criterion import Criterion
from loss_landscape.operators.base import CurvatureOperator, kind_of
from loss_landscape.operators.batch_sum import BatchSum
from loss_landscape.surface.surface import LossSurface


class SurfaceOperator(CurvatureOperator):
    """A curvature matrix at the origin of a `surface`. It also multiplies a tensor for each parameter, by name."""

    def __init__(self, surface: LossSurface):
        super().__init__(surface.size, surface.dtype, surface.device)
        self.surface = surface

    def fingerprint(self) -> Iterable[Tensor | str]:
        """The kind of matrix, and where on its surface it is."""
        return type(self).__name__, repr(self.surface.layout.names), self.surface.origin

    @overload  # type: ignore[override]  # it takes more than its base
    def __matmul__(self, vectors: Tensor | np.ndarray) -> Tensor: ...

    @overload
    def __matmul__(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]: ...

    def __matmul__(self, vectors: Tensor | np.ndarray | Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
        """The product with a vector [P], with the columns of [P, K], or with a tensor for each parameter, by name."""
        if isinstance(vectors, Mapping):
            return self.surface.layout.unflatten(super().__matmul__(self.surface.layout.flatten(vectors)))
        if isinstance(vectors, list | tuple):
            raise TypeError(
                "expected a vector [P], columns [P, K], or a tensor for each parameter by name, got a list; with names it is "
                "dict(zip(operator.surface.layout.names, tensors))"
            )
        return super().__matmul__(vectors)


class SummedOperator(SurfaceOperator):
    """A matrix that is a sum over a surface's batches, made within a memory budget."""

    def __init__(self, surface: LossSurface, products: BatchSum):
        super().__init__(surface)
        self._sum = products

    @property
    def note(self) -> str:
        """What was done where memory ran out."""
        return self._sum.note

    def matmat(self, vectors: Tensor) -> Tensor:
        return self._sum(vectors)

    def release(self) -> None:
        """Drop what is kept between products; it is computed again when it is needed."""
        self._sum.release()


def require_surface_alone(given: object, operator: type, *beside: object) -> None:
    """Raise TypeError where an `operator` is given something else than a surface, or more, with what to write."""
    if beside or not isinstance(given, LossSurface):
        raise TypeError(
            f"{operator.__name__} takes a surface, got {', '.join(map(kind_of, (given, *beside)))}; write "
            f"{operator.__name__}(LossSurface(net, loss_fn, batches))"
        )


def require_criterion(surface: LossSurface, what: str) -> Criterion:
    """The surface's criterion; ValueError where outputs and loss are not apart."""
    if surface.objective.criterion is None:
        raise ValueError(f"{what} needs outputs and loss apart: build the surface with loss_fn(outputs, targets), not batch_loss")
    return surface.objective.criterion
