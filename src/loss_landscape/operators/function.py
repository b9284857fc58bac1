"""A symmetric matrix known by a plain function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from loss_landscape.operators.base import SYMMETRY, CurvatureOperator, kind_of
from loss_landscape.operators.symmetry import asymmetry


class FunctionOperator(CurvatureOperator):
    """A symmetric matrix given by a `function` that multiplies it with a vector [P], giving [P].

    `size` is P, `dtype` and `device` are those of the vectors that the function is given. `check_symmetry` compares uᵀHv with
    vᵀHu for one random pair, which takes two products, and raises ValueError where they differ by more than rounding.

    >>> hilbert = 1 / (torch.arange(3)[:, None] + torch.arange(3) + 1)
    >>> operator = FunctionOperator(lambda vector: hilbert @ vector, size=3)
    >>> operator.columns([0]).T
    tensor([[1.0000, 0.5000, 0.3333]])
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        *,
        size: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        check_symmetry: bool = True,
    ):
        if not callable(function):
            advice = "MatrixOperator(matrix) is that of a matrix" if isinstance(function, Tensor | np.ndarray) else "v ↦ Hv"
            raise TypeError(f"expected a function of a vector, got {kind_of(function)}; {advice}")
        super().__init__(size, dtype, torch.device(device))
        self._function = function
        if check_symmetry:
            self._require_symmetry()

    def matmat(self, vectors: Tensor) -> Tensor:
        return torch.stack([self._product(vector) for vector in vectors.T.contiguous()], dim=1) if vectors.shape[1] else vectors

    def _product(self, vector: Tensor) -> Tensor:
        product = self._function(vector.clone())  # it may write into its argument, which is the caller's
        if not isinstance(product, Tensor) or product.shape != vector.shape:
            given = list(product.shape) if isinstance(product, Tensor) else type(product).__name__
            raise ValueError(f"the function must give a tensor [P] for a vector [P], P = {self.size}, but gave {given}")
        return product.detach().to(vector)

    def _require_symmetry(self) -> None:
        there, back, size = asymmetry(self.matmat, torch.empty(self.size, dtype=self.dtype, device=self.device))
        if abs(there - back) > SYMMETRY * size:
            raise ValueError(f"the function's matrix is not symmetric: uᵀHv = {there:.6g}, vᵀHu = {back:.6g} for random u, v")
