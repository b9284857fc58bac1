"""The Hessian of a loss surface, by the method that suits it."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch

from loss_landscape.operators.batch_sum import BatchSum, DeviceFallback, Terms
from loss_landscape.operators.derivative_check import NOT_FINITE, DerivativeCheck, WrongDerivativeError, require_symmetry
from loss_landscape.operators.finite_differences import difference_terms, in_exact_dtype
from loss_landscape.operators.hessian_products import forward_products, retained_products, retained_terms, traced_terms
from loss_landscape.operators.surface_operator import SummedOperator, require_surface_alone
from loss_landscape.surface.slopes import STEPS, random_vectors
from loss_landscape.surface.surface import LossSurface

HessianMethod = Literal["traced", "retained", "finite_differences"]
MAX_PARAMETERS_TRACED = 1 << 20  # above, weights and not activations make the cost, and tracing saves nothing
LARGE = 1e15  # of a loss or a slope: in float32 their products may overflow
TERMS = {"traced": traced_terms, "retained": retained_terms}
EXAMPLE_PRODUCTS = {"traced": forward_products, "retained": retained_products}
METHODS = (*TERMS, "finite_differences")


class HessianOperator(SummedOperator):
    """The Hessian of a `surface`'s loss at its origin, its regulariser included.

    `method` is one of `traced` (the gradient's forward derivative, all that does not depend on the vector computed once),
    `retained` (the gradient's graph, differentiated backwards) and `finite_differences` (central ones of the gradient in float64,
    with about 1e-8 of relative error where they cross no kink of the net). `auto` traces small nets with convolutions, where that
    saves up to half of a product, and falls back where a derivative is missing, not finite, not symmetric, or not that of the
    gradient, which is judged on a few examples in float64; `.method` says what it took, and `.note` why it is not what the shapes
    would choose, and where autograd's gradient itself is not the loss's slope, as behind a stop-gradient. There the matrix is
    that of the loss with what is detached held fixed.

    What is computed once is kept between products as far as `memory_budget_mb`, in MiB, goes; the other batches' graphs are
    rebuilt for each product. Out of memory, batches are cut in halves; where that does not help, `on_oom` decides between an
    `error` and the `cpu`.

    Raises TypeError for what is no surface, or for something `beside` one, ValueError for an unknown method or a net for
    which the method, or each of them, gives wrong second derivatives, and torch.OutOfMemoryError.

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
        if method != "auto" and method not in METHODS:
            raise ValueError(f"method must be 'auto', {', '.join(map(repr, METHODS))}, got {method!r}")
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
    pays = surface.layout.has_convolution and surface.size <= MAX_PARAMETERS_TRACED and not surface.objective.net.rules.draws
    return ("traced", "retained", "finite_differences") if pays else ("retained", "finite_differences")


def _first_that_works(
    surface: LossSurface, candidates: tuple[HessianMethod, ...], memory_budget_mb: int, on_oom: DeviceFallback
) -> tuple[HessianMethod, BatchSum, str]:
    """The method, its products, and why it is not an earlier one; ValueError where none gives the loss's second derivatives."""
    reasons, draws = list[str](), surface.objective.net.rules.draw_note
    check = DerivativeCheck(surface)
    for method in candidates:
        try:
            if method == "finite_differences":
                exact, terms, note = _differences(surface, check)
                products = BatchSum(exact, terms, memory_budget_mb, on_oom)
            else:
                products, note = BatchSum(surface, TERMS[method], memory_budget_mb, on_oom), ""
                _require_derivatives(surface, products, check, method)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reasons.append(f"not {method}: {str(error).strip().partition(chr(10))[0]}")
        else:
            return (
                method,
                products,
                "; ".join(filter(None, [*reasons, note, surface.derivative_note, draws])),
            )
    advice = (
        "give method='auto'" if len(candidates) == 1 else "this loss has no Hessian here: take another point, or a smooth loss"
    )
    raise ValueError(f"{'; '.join(reasons)}; {advice}")


def _differences(surface: LossSurface, check: DerivativeCheck) -> tuple[LossSurface, Terms, str]:
    """The surface to take differences of, these, and what to know of them."""
    exact = in_exact_dtype(surface)
    step, note = check.difference_step() if check.surface.dtype == exact.dtype else (STEPS[exact.dtype], "")
    if exact.dtype != torch.float64:
        note = f"differences in {exact.dtype}: wrong where they cross a kink of the net"
    return exact, partial(difference_terms, step=step), note


def _require_derivatives(
    surface: LossSurface, products: BatchSum, check: DerivativeCheck, method: Literal["traced", "retained"]
) -> None:
    """Raise RuntimeError where a derivative is missing, not finite, or not that of the loss."""
    pair = random_vectors(surface.origin, 2)
    images = products(pair)
    if not bool(images.isfinite().all()) and check.is_finite and not _has_overflown(surface):
        raise WrongDerivativeError(NOT_FINITE)
    require_symmetry(pair, images)
    check.require(EXAMPLE_PRODUCTS[method])


def _has_overflown(surface: LossSurface) -> bool:
    """Whether loss or gradient are as those of a net that has diverged; NaN in the gradient of a finite loss is a kink."""
    largest = float(surface.gradient().abs().max())
    return not abs(surface.loss()) < LARGE or largest > LARGE
