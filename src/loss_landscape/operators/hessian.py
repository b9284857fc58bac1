"""The curvature matrices of a loss surface at its origin."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from loss_landscape.operators.base import CurvatureOperator
from loss_landscape.operators.batch_sum import OnOutOfMemory, SummedProducts
from loss_landscape.operators.finite_differences import difference_summands, in_exact_dtype
from loss_landscape.operators.gauss_newton import fisher_summands, gauss_newton_summands
from loss_landscape.operators.hessian_products import retained_summands, traced_summands
from loss_landscape.surface.surface import LossSurface

Method = Literal["traced", "retained", "finite_differences"]
MOST_PARAMETERS_TRACED = 1 << 20  # above, weights and not activations make the cost, and tracing saves nothing
SUMMANDS = {"traced": traced_summands, "retained": retained_summands, "finite_differences": difference_summands}


class _OfSurface(CurvatureOperator):
    """A matrix that is a sum over a surface's batches, made within a memory budget."""

    def __init__(self, surface: LossSurface, products: SummedProducts):
        super().__init__(surface.size, surface.dtype, surface.device)
        self.surface, self._sum = surface, products

    @property
    def note(self) -> str:
        """What was done where memory ran out."""
        return self._sum.note

    def matmat(self, vectors: Tensor) -> Tensor:
        return self._sum(vectors)

    def release(self) -> None:
        """Drop what is kept between products; it is computed again when it is needed."""
        self._sum.release()


class HessianOperator(_OfSurface):
    """The Hessian of the surface's loss, its regulariser included.

    `method` is one of `traced` (the gradient's forward derivative, all that does not depend on the vector computed once),
    `retained` (the gradient's graph, differentiated backwards) and `finite_differences` (central ones of the gradient in float64,
    with about 1e-8 of relative error where they cross no kink of the net). `auto` traces small nets with convolutions, where that
    saves up to half of a product, and falls back where a derivative is missing; `.method` says what it took, and `.note` why
    it is not what the shapes would choose. What is computed once is kept between products as far as `memory_budget_mb` goes; the
    other batches' graphs are rebuilt for each product. Out of memory, batches are cut in halves; where that does not help,
    `on_oom` decides between an error and the CPU.
    """

    def __init__(
        self,
        surface: LossSurface,
        *,
        method: Method | Literal["auto"] = "auto",
        memory_budget_mb: int = 2048,
        on_oom: OnOutOfMemory = "error",
    ):
        if method != "auto" and method not in SUMMANDS:
            raise ValueError(f"method must be 'auto', {', '.join(map(repr, SUMMANDS))}, got {method!r}")
        candidates = _by_rule(surface) if method == "auto" else (method,)
        self.method, products, self._reason = _first_that_works(surface, candidates, memory_budget_mb, on_oom)
        super().__init__(surface, products)

    @property
    def note(self) -> str:
        """Why the method is not what the shapes would choose, and what was done where memory ran out."""
        return "; ".join(filter(None, (self._reason, self._sum.note)))


class GaussNewtonOperator(_OfSurface):
    """The generalised Gauss–Newton matrix Σ Jᵀ∇²ℓ J: the net linearised, the loss of its outputs in full.

    Positive semi-definite where the loss is convex in the outputs, and the true Fisher matrix under cross entropy. A regulariser
    adds its own Hessian. Memory is used as by `HessianOperator`.
    """

    def __init__(self, surface: LossSurface, *, memory_budget_mb: int = 2048, on_oom: OnOutOfMemory = "error"):
        require_criterion(surface, "the Gauss–Newton matrix")
        super().__init__(surface, SummedProducts(surface, gauss_newton_summands, memory_budget_mb, on_oom))


class EmpiricalFisherOperator(_OfSurface):
    """Σ wᵢ gᵢgᵢᵀ / Σ wᵢ over examples: gᵢ the gradient of an example's own loss, wᵢ its share of the criterion's denominator.

    A regulariser belongs to no example and is left out. Memory is used as by `HessianOperator`.
    """

    def __init__(self, surface: LossSurface, *, memory_budget_mb: int = 2048, on_oom: OnOutOfMemory = "error"):
        require_criterion(surface, "the empirical Fisher matrix")
        super().__init__(surface, SummedProducts(surface, fisher_summands, memory_budget_mb, on_oom))


def require_criterion(surface: LossSurface, what: str) -> None:
    """Raise ValueError where outputs and loss are not apart."""
    if surface.objective.criterion is None:
        raise ValueError(f"{what} needs outputs and loss apart: build the surface with loss_fn(outputs, targets), not batch_loss")


def _by_rule(surface: LossSurface) -> tuple[Method, ...]:
    has_convolution = any(len(shape) > 2 for shape in surface.layout.shapes)
    pays = has_convolution and surface.size <= MOST_PARAMETERS_TRACED
    return ("traced", "retained", "finite_differences") if pays else ("retained", "finite_differences")


def _first_that_works(
    surface: LossSurface, candidates: tuple[Method, ...], memory_budget_mb: int, on_oom: OnOutOfMemory
) -> tuple[Method, SummedProducts, str]:
    """The method, its products, and why it is not an earlier one."""
    reasons: list[str] = []
    for method in candidates:
        if method == "finite_differences":
            exact = in_exact_dtype(surface)
            if exact.dtype != torch.float64:
                reasons.append(f"differences in {exact.dtype}: wrong where they cross a kink of the net")
            return method, SummedProducts(exact, SUMMANDS[method], memory_budget_mb, on_oom), "; ".join(reasons)
        products = SummedProducts(surface, SUMMANDS[method], memory_budget_mb, on_oom)
        missing = _missing_derivative(surface, products)
        if missing is None:
            return method, products, "; ".join(reasons)
        reasons.append(f"not {method}: {missing}")
    raise ValueError(f"{'; '.join(reasons)}; give method='auto'")


def _missing_derivative(surface: LossSurface, products: SummedProducts) -> str | None:
    try:
        _require_symmetry(surface, products)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        return str(error).strip().partition("\n")[0]
    return None


def _require_symmetry(surface: LossSurface, products: SummedProducts) -> None:
    """Refuse a net with an operation whose second derivative is wrong, as that of torch's own `_weight_norm` is in silence."""
    draw = torch.Generator().manual_seed(0)
    pair = torch.randn(surface.size, 2, generator=draw, dtype=torch.float64).to(surface.origin)
    images = products(pair).double()
    there, back = pair[:, 0].double() @ images[:, 1], pair[:, 1].double() @ images[:, 0]
    size = images.norm() * pair.double().norm() / surface.size**0.5  # of a product with an unrelated vector
    if bool((there - back).abs() > (1e-6 if surface.dtype == torch.float64 else 1e-2) * size):
        raise ValueError(
            f"the Hessian of this net is not symmetric (uᵀHv = {there:.6g}, vᵀHu = {back:.6g} for random u, v): one of its "
            "operations has a wrong second derivative; torch's weight_norm is known for it, write weight = g·v/‖v‖ out instead, "
            "or give method='finite_differences'"
        )
