"""The Hessian of a loss surface, by the method that suits it."""

from __future__ import annotations

from typing import Literal

import torch

from loss_landscape.operators.batch_sum import BatchSum, DeviceFallback
from loss_landscape.operators.finite_differences import difference_terms, in_exact_dtype
from loss_landscape.operators.hessian_products import retained_terms, traced_terms
from loss_landscape.operators.surface_operator import SummedOperator, require_surface_alone
from loss_landscape.operators.symmetry import asymmetry
from loss_landscape.surface.surface import LossSurface

HessianMethod = Literal["traced", "retained", "finite_differences"]
MAX_PARAMETERS_TRACED = 1 << 20  # above, weights and not activations make the cost, and tracing saves nothing
TERMS = {"traced": traced_terms, "retained": retained_terms, "finite_differences": difference_terms}


class HessianOperator(SummedOperator):
    """The Hessian of a `surface`'s loss at its origin, its regulariser included.

    `method` is one of `traced` (the gradient's forward derivative, all that does not depend on the vector computed once),
    `retained` (the gradient's graph, differentiated backwards) and `finite_differences` (central ones of the gradient in float64,
    with about 1e-8 of relative error where they cross no kink of the net). `auto` traces small nets with convolutions, where that
    saves up to half of a product, and falls back where a derivative is missing; `.method` says what it took, and `.note` why
    it is not what the shapes would choose. What is computed once is kept between products as far as `memory_budget_mb`, in MiB,
    goes; the other batches' graphs are rebuilt for each product. Out of memory, batches are cut in halves; where that does not
    help, `on_oom` decides between an `error` and the `cpu`.

    Raises TypeError for what is no surface, or for something `beside` one, ValueError for an unknown method or a net whose
    derivatives are not symmetric, and torch.OutOfMemoryError.

    >>> hessian = HessianOperator(surface)
    >>> hessian
    HessianOperator(P=2, method='retained', float32, cpu)
    >>> hessian @ torch.ones(2), hessian.columns([0]).T
    (tensor([4., 1.]), tensor([[4., 0.]]))
    """

    def __init__(
        self,
        surface: LossSurface,
        *beside: object,
        method: HessianMethod | Literal["auto"] = "auto",
        memory_budget_mb: int = 2048,
        on_oom: DeviceFallback = "error",
    ):
        require_surface_alone(surface, type(self), *beside)
        if method != "auto" and method not in TERMS:
            raise ValueError(f"method must be 'auto', {', '.join(map(repr, TERMS))}, got {method!r}")
        candidates = _by_rule(surface) if method == "auto" else (method,)
        self.method, products, self._reason = _first_that_works(surface, candidates, memory_budget_mb, on_oom)
        super().__init__(surface, products)

    @property
    def note(self) -> str:
        """Why the method is not what the shapes would choose, and what was done where memory ran out."""
        return "; ".join(filter(None, (self._reason, self._sum.note)))

    def __repr__(self) -> str:
        return self._told(f"method={self.method!r}")


def _by_rule(surface: LossSurface) -> tuple[HessianMethod, ...]:
    has_convolution = any(len(shape) > 2 for shape in surface.layout.shapes)
    pays = has_convolution and surface.size <= MAX_PARAMETERS_TRACED
    return ("traced", "retained", "finite_differences") if pays else ("retained", "finite_differences")


def _first_that_works(
    surface: LossSurface, candidates: tuple[HessianMethod, ...], memory_budget_mb: int, on_oom: DeviceFallback
) -> tuple[HessianMethod, BatchSum, str]:
    """The method, its products, and why it is not an earlier one."""
    reasons: list[str] = []
    for method in candidates:
        if method == "finite_differences":
            exact = in_exact_dtype(surface)
            if exact.dtype != torch.float64:
                reasons.append(f"differences in {exact.dtype}: wrong where they cross a kink of the net")
            return method, BatchSum(exact, TERMS[method], memory_budget_mb, on_oom), "; ".join(reasons)
        products = BatchSum(surface, TERMS[method], memory_budget_mb, on_oom)
        missing = _missing_derivative(surface, products)
        if missing is None:
            return method, products, "; ".join(reasons)
        reasons.append(f"not {method}: {missing}")
    raise ValueError(f"{'; '.join(reasons)}; give method='auto'")


def _missing_derivative(surface: LossSurface, products: BatchSum) -> str | None:
    try:
        _require_symmetry(surface, products)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        return str(error).strip().partition("\n")[0]
    return None


def _require_symmetry(surface: LossSurface, products: BatchSum) -> None:
    """Refuse a net with an operation whose second derivative is wrong, as that of torch's own `_weight_norm` is in silence."""
    there, back, size = asymmetry(products, surface.origin)
    if abs(there - back) > (1e-6 if surface.dtype == torch.float64 else 1e-2) * size:
        raise ValueError(
            f"the Hessian of this net is not symmetric (uᵀHv = {there:.6g}, vᵀHu = {back:.6g} for random u, v): one of its "
            "operations has a wrong second derivative; torch's weight_norm is known for it, write weight = g·v/‖v‖ out instead, "
            "or give method='finite_differences'"
        )
