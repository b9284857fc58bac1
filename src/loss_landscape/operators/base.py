"""The interface of curvature: a symmetric matrix known only by its products."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from loss_landscape.nested import as_tensor

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

SYMMETRY = 1e-2  # beside the products' size: more is no rounding, in float32


class CurvatureOperator(ABC):
    """A symmetric P×P matrix, matrix-free: `operator @ vectors` for [P] or [P, K], tensors or NumPy arrays.

    A subclass calls `super().__init__(size, dtype, device)`, with P, and the dtype and device of its products, and has `matmat`.
    `num_products` counts the columns it was multiplied with.

    >>> class Scaling(CurvatureOperator):
    ...     def matmat(self, vectors):
    ...         return 2 * vectors
    >>> scaling = Scaling(3, torch.float32, torch.device("cpu"))
    >>> scaling @ torch.ones(3), scaling.shape, scaling.num_products
    (tensor([2., 2., 2.]), (3, 3), 1)
    """

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device):
        self.size, self.dtype, self.device = size, dtype, device
        self.num_products = 0

    if not TYPE_CHECKING:  # it would make every name known to a type checker

        def __getattr__(self, name: str) -> Any:
            """Never found here: this says what is missing."""
            if name in ("size", "dtype", "device", "num_products"):
                raise AttributeError(f"{type(self).__name__}.__init__ must first call super().__init__(size, dtype, device)")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @abstractmethod
    def matmat(self, vectors: Tensor) -> Tensor:
        """The product with `vectors` [P, K], [P, K]."""

    @property
    def shape(self) -> tuple[int, int]:
        """(P, P)."""
        return self.size, self.size

    def columns(self, index: Sequence[int] | Tensor) -> Tensor:
        """The columns at `index` [K], negative ones counted from the end, [P, K], a product each. IndexError beyond the end.

        The matrix is symmetric: its rows are these, transposed.
        """
        positions = torch.as_tensor(as_tensor(index), dtype=torch.long, device=self.device).reshape(-1)
        if bool(((positions < -self.size) | (positions >= self.size)).any()):
            raise IndexError(f"expected indices from 0 to {self.size - 1}, got {positions.tolist()}")
        units = torch.zeros(self.size, len(positions), dtype=self.dtype, device=self.device)
        units[positions, torch.arange(len(positions), device=self.device)] = 1
        return self @ units

    def rows(self, index: Sequence[int] | Tensor) -> Tensor:
        """The rows at `index` [K], [K, P]: the columns transposed, as the matrix is symmetric."""
        return self.columns(index).T

    def __matmul__(self, vectors: Tensor | np.ndarray) -> Tensor:
        """The product with a vector [P] or with the columns of [P, K]."""
        if isinstance(vectors, np.ndarray):
            vectors = torch.from_numpy(np.ascontiguousarray(vectors))
        if not isinstance(vectors, Tensor):
            raise TypeError(f"expected a tensor or an array [P] or [P, K] with P = {self.size}, got {type(vectors).__name__}")
        if vectors.dim() not in (1, 2) or vectors.shape[0] != self.size:
            raise ValueError(f"expected a vector [P] or columns [P, K] with P = {self.size}, got {list(vectors.shape)}")
        columns = vectors.detach().to(self.device, self.dtype).reshape(self.size, -1)
        self.num_products += columns.shape[1]
        return self.matmat(columns).reshape(vectors.shape)

    def fingerprint(self) -> Iterable[Tensor | str]:
        """What tells this matrix from others of its shape, as far as it is known: nothing, unless a subclass says more."""
        return ()

    def to_scipy(self) -> LinearOperator:
        """The same matrix for SciPy, for example `scipy.sparse.linalg.eigsh(operator.to_scipy(), which="LA")`."""
        from scipy.sparse.linalg import LinearOperator

        def product(vectors: np.ndarray) -> np.ndarray:
            return (self @ vectors).cpu().numpy()

        kind = np.dtype(str(self.dtype).removeprefix("torch."))
        return LinearOperator(self.shape, matvec=product, matmat=product, rmatvec=product, dtype=kind)

    def __repr__(self) -> str:
        return self._told()

    def _told(self, *facts: str) -> str:
        """The repr, with `facts` of a subclass."""
        parts = [f"P={self.size}", *facts, str(self.dtype).removeprefix("torch."), str(self.device)]
        return f"{type(self).__name__}({', '.join(parts)})"


class MatrixOperator(CurvatureOperator):
    """A symmetric `matrix` [P, P] given in full, a tensor or a NumPy array; one of integers is taken in torch's default dtype.

    ValueError where it is not square, complex, or clearly not symmetric.

    >>> MatrixOperator(torch.diag(torch.tensor([3.0, 1.0]))) @ torch.tensor([1.0, 1.0])
    tensor([3., 1.])
    """

    def __init__(self, matrix: Tensor | np.ndarray):
        held: Tensor = as_tensor(matrix)
        if held.dim() != 2 or held.shape[0] != held.shape[1] or not len(held):
            raise ValueError(f"expected a square matrix, got {list(held.shape)}")
        if held.is_complex():
            raise ValueError("expected a real matrix, got a complex one")
        held = held if held.is_floating_point() else held.to(torch.get_default_dtype())
        if bool(((held - held.T).abs() > SYMMETRY * held.abs().amax()).any()):
            raise ValueError("expected a symmetric matrix; give (matrix + matrix.T) / 2 if that is what is meant")
        super().__init__(len(held), held.dtype, held.device)
        self.matrix = held

    def matmat(self, vectors: Tensor) -> Tensor:
        return self.matrix @ vectors

    def fingerprint(self) -> Iterable[Tensor | str]:
        return (self.matrix,)


def as_operator(given: CurvatureOperator | Tensor | np.ndarray) -> CurvatureOperator:
    """`given` itself, or the operator of a square tensor or array; TypeError for anything else, with what to write."""
    if isinstance(given, CurvatureOperator):
        return given
    if isinstance(given, Tensor | np.ndarray):
        return MatrixOperator(given)
    raise TypeError(
        f"expected a curvature operator or a square tensor, got {kind_of(given)}; write HessianOperator(surface), with "
        "surface = LossSurface(net, loss_fn, batches) for a net, or FunctionOperator(function, size=P) for a function v ↦ Hv"
    )


def kind_of(thing: object) -> str:
    """What a thing is, for a sentence."""
    if isinstance(thing, torch.nn.Module):
        return f"a net ({type(thing).__name__})"
    return f"a {type(thing).__name__}"
