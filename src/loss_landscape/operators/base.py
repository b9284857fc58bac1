"""The interface of curvature: a symmetric matrix known only by its products."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


class CurvatureOperator(ABC):
    """A symmetric P×P matrix, matrix-free. `products` counts the columns it was multiplied with."""

    block: int = 1  # the number of columns it likes best

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device):
        self.size, self.dtype, self.device = size, dtype, device
        self.products = 0

    @abstractmethod
    def matmat(self, vectors: Tensor) -> Tensor:
        """The product with `vectors` [P, K], [P, K]."""

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """The product with a vector [P] or with the columns of [P, K]."""
        if vectors.dim() not in (1, 2) or vectors.shape[0] != self.size:
            raise ValueError(f"expected a vector [P] or columns [P, K] with P = {self.size}, got {list(vectors.shape)}")
        columns = vectors.detach().to(self.device, self.dtype).reshape(self.size, -1)
        self.products += columns.shape[1]
        return self.matmat(columns).reshape(vectors.shape)

    def to_scipy(self) -> LinearOperator:
        """The same matrix for SciPy, for example `scipy.sparse.linalg.eigsh(operator.to_scipy(), which="LA")`."""
        import numpy as np
        from scipy.sparse.linalg import LinearOperator

        def product(vectors: np.ndarray) -> np.ndarray:
            return (self @ torch.from_numpy(np.ascontiguousarray(vectors))).cpu().numpy()

        kind = np.dtype(str(self.dtype).removeprefix("torch."))
        return LinearOperator((self.size, self.size), matvec=product, matmat=product, rmatvec=product, dtype=kind)


class MatrixOperator(CurvatureOperator):
    """A symmetric matrix given in full."""

    def __init__(self, matrix: Tensor):
        if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"expected a square matrix, got {list(matrix.shape)}")
        super().__init__(len(matrix), matrix.dtype, matrix.device)
        self.matrix = matrix

    def matmat(self, vectors: Tensor) -> Tensor:
        return self.matrix @ vectors
