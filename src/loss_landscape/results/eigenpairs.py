"""Eigenvalues at both ends of a spectrum, with their vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from loss_landscape.results.result import Result, array, short, table

if TYPE_CHECKING:
    from pandas import DataFrame

TENSORS = ("values", "vectors", "residuals", "converged")


@dataclass(frozen=True, eq=False, repr=False)
class Eigenpairs(Result):
    """The largest eigenvalues, descending, then the smallest, ascending, with their unit vectors.

    `values` [k], float64, on the CPU, and `vectors` [P, k]; the first `num_top` of the k are the largest. `residuals` [k] are
    ‖Hx − λx‖ over the largest |Ritz value|, `converged` [k] says which are within the tolerance. `num_products` is the number of
    products with the operator that it took, verification included. `verified` says whether a search beside the pairs found
    nothing more; it is False where `max_products` came first. `note` says what went otherwise than asked.

    >>> pairs = eigenpairs(HessianOperator(surface), top=1, bottom=1)
    >>> pairs
    Eigenpairs(top 4; bottom 1; 2 products, verified)
    >>> pairs.select(top=1, bottom=0).vectors.abs().round()
    tensor([[1.],
            [0.]])
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    converged: Tensor
    num_top: int
    num_products: int
    verified: bool = True
    note: str = ""

    def select(self, top: int, bottom: int) -> Eigenpairs:
        """The `top` largest and `bottom` smallest of these."""
        size, count = self.vectors.shape
        if top < 0 or bottom < 0 or top + bottom == 0:
            raise ValueError(f"expected top and bottom ≥ 0 and not both 0, got top={top}, bottom={bottom}")
        top = min(top, size)
        bottom = min(bottom, size - top)
        if count == size:  # all there are, so either end can be served
            order = torch.argsort(self.values, descending=True)
            return self._pick([*order[:top].tolist(), *order[size - bottom :].flip(0).tolist()], top)
        if top > self.num_top or bottom > count - self.num_top:
            raise ValueError(
                f"asked for {top} largest and {bottom} smallest eigenpairs, but {self.num_top} and {count - self.num_top} were "
                "solved for; solve for more"
            )
        return self._pick([*range(top), *range(self.num_top, self.num_top + bottom)], top)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The fields by name."""
        numbers = {name: np.array(getattr(self, name)) for name in ("num_top", "num_products", "verified", "note")}
        return {name: array(getattr(self, name)) for name in TENSORS} | numbers

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Eigenpairs:
        """The pairs of which `to_arrays` made these `arrays`, on the CPU."""
        values, vectors, residuals, converged = (torch.from_numpy(arrays[name]) for name in TENSORS)
        num_top, num_products = int(arrays["num_top"]), int(arrays["num_products"])
        verified, note = bool(arrays["verified"]), str(arrays["note"])
        return cls(values, vectors, residuals, converged, num_top, num_products, verified, note)

    def to_pandas(self) -> DataFrame:
        """A row a pair: `end` (top or bottom), `value`, `residual` and `converged`."""
        ends = ["top"] * self.num_top + ["bottom"] * (len(self.values) - self.num_top)
        found = {"value": self.values, "residual": self.residuals, "converged": self.converged}
        return table({"end": ends, **{name: array(column) for name, column in found.items()}})

    def __repr__(self) -> str:
        top, bottom = self.values[: self.num_top], self.values[self.num_top :]
        ends = [f"{end} {short(values)}" for end, values in (("top", top), ("bottom", bottom)) if len(values)]
        missing = int((~self.converged).sum())
        state = f"{missing} not converged" if missing else "verified" if self.verified else "not verified"
        return f"Eigenpairs({'; '.join(ends)}; {self.num_products} products, {state})"

    def _pick(self, index: list[int], top: int) -> Eigenpairs:
        return replace(
            self,
            values=self.values[index],
            vectors=self.vectors[:, index],
            residuals=self.residuals[index],
            converged=self.converged[index],
            num_top=top,
        )
