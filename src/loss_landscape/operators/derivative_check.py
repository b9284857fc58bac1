"""Whether a method's second derivatives are those of the loss, judged in float64 on a few of its examples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from loss_landscape.objective.batch_loss import FAULTS
from loss_landscape.objective.functional_net import undisturbed
from loss_landscape.operators.symmetry import asymmetry_of
from loss_landscape.surface.few_examples import MAX_PARAMETERS_IN_FLOAT64, TermLoss, loss_of_few
from loss_landscape.surface.slopes import STEPS, STEPS_COMPARED, random_vectors, steady, value_and_gradient
from loss_landscape.surface.surface import LossSurface

ASYMMETRY = {torch.float64: 1e-6, torch.float32: 1e-2}
"""Beside the products' size: of a deep net's products half of the digits may be rounding."""
MISMATCH = 1e-4
"""Of products and differences of the gradient: these are off by eps/step = 1e-9 on a smooth loss."""
ROUGH = 1e-2
"""The same with a step for float32, which is what such differences are worth."""
ROUNDING_INSIDE = (torch.float32, torch.bfloat16)
"""What a net may compute in whatever dtype its parameters have: a step for float64 is then lost in rounding."""

NOT_FINITE = "its products are not finite though the loss is: it has a kink at the origin, such as a norm or a root at 0"

Products = Callable[[LossSurface, TermLoss, Tensor], Tensor]
"""(surface, term, vectors [P, 2]) → the products with the term's Hessian [P, 2]."""


class WrongDerivativeError(RuntimeError):
    """A method's second derivatives are not those of the loss."""


class DerivativeCheck:
    """A few examples of a `surface` in float64, where the net has that, with the differences of their gradient."""

    def __init__(self, surface: LossSurface):
        self._note = surface.derivative_note
        self.surface, self.loss = _exact(surface)
        self.pair = random_vectors(self.surface.origin, 2)  # [P, 2]
        self.is_finite = self._has_loss()

    def require(self, products: Products) -> None:
        """Raise WrongDerivativeError unless a method's `products` are finite, symmetric, and those of the gradient's change.

        For the last, where autograd's gradient is the loss's slope, uᵀHv is held against differences of the gradient along v at
        three steps. Where the loss itself is not finite there is nothing to judge.
        """
        if not self.is_finite:
            return
        try:
            with undisturbed(self.surface.device):
                images = products(self.surface, self.loss, self.pair).double()
        except FAULTS:  # out of memory too: it may work in the surface's own dtype, or on whole batches
            return
        if not bool(images.isfinite().all()):
            raise WrongDerivativeError(NOT_FINITE)
        require_symmetry(self.pair, images)
        if not self._note and self.surface.dtype == torch.float64:
            self._require_change_of_gradient(images)

    def difference_step(self) -> tuple[float, str]:
        """The step, beside 1 + ‖θ‖, at which central differences of the gradient are steady, and a note on it."""
        dtype = self.surface.dtype
        if not self.is_finite:
            return STEPS[dtype], ""
        steps = {own: STEPS[own] for own in (dtype, *ROUNDING_INSIDE)}
        moves = False
        for own, step in steps.items():
            along = self._difference(self.pair[:, 1], step)
            if self._is_steady(step, along):
                require_symmetry(self.pair, torch.stack([self._difference(self.pair[:, 0], step), along], dim=1), ROUGH)
                inside = f"differences with a step for {str(own).removeprefix('torch.')}, in which the net computes"
                return step, "" if own == dtype else inside
            moves = moves or bool(along.any())
        if not moves:
            return STEPS[dtype], ""
        raise WrongDerivativeError(
            "differences of the gradient change with the step: the loss has a kink at the origin, or the net rounds its numbers"
        )

    def _is_steady(self, step: float, along: Tensor) -> bool:
        """Whether a step three times as large gives the same as `along` [P], the difference along the second of the pair.

        None at all counts where the loss itself is seen to move.
        """
        vector = self.pair[:, 1]
        again = self._difference(vector, 3 * step)
        if bool(along.any()):
            return float((along - again).norm()) <= ROUGH * float(along.norm())
        (there, _), (back, _) = self._ends(vector, self._reach(vector, step))
        return bool(there != back) and not bool(again.any())

    def _has_loss(self) -> bool:
        try:
            with undisturbed(self.surface.device):
                value, _ = value_and_gradient(self.loss, self.surface.layout, self.surface.origin)
        except torch.OutOfMemoryError:  # there is nothing to judge by; products are mended where they are computed
            return False
        return bool(value.isfinite())

    def _require_change_of_gradient(self, images: Tensor) -> None:
        size, gaps = float(images.norm() * self.pair.norm()) / len(images) ** 0.5, list[Tensor]()
        for times in STEPS_COMPARED:
            change = self._difference(self.pair[:, 1], STEPS[torch.float64] * times)
            gaps.append(self.pair.T @ (change - images[:, 1]))  # [2]: of uᵀHv and of vᵀHv
            if float(gaps[-1].abs().max()) <= MISMATCH * size:
                return
        for found, each in zip(self.pair.T @ images[:, 1], torch.stack(gaps, dim=1).tolist(), strict=True):
            if min(map(abs, each)) > MISMATCH * size and steady(each):
                raise WrongDerivativeError(
                    f"uᵀHv = {float(found):.6g} where the gradient changes by {float(found) + each[0]:.6g} for random u, v: an "
                    "operation has a wrong second derivative"
                )

    def _difference(self, vector: Tensor, step: float) -> Tensor:
        """The central difference of the gradient along a vector [P], [P] float64."""
        reach = self._reach(vector, step)
        (_, there), (_, back) = self._ends(vector, reach)
        return (there - back).double() / (2 * reach)

    def _reach(self, vector: Tensor, step: float) -> float:
        return step * float((1 + self.surface.origin.norm()) / vector.norm())

    def _ends(self, vector: Tensor, reach: float) -> list[tuple[Tensor, Tensor]]:
        """The loss and its gradient [P] at the origin ± reach · vector."""
        layout, origin = self.surface.layout, self.surface.origin
        with undisturbed(self.surface.device):
            return [value_and_gradient(self.loss, layout, origin + sign * reach * vector) for sign in (1, -1)]


def require_symmetry(pair: Tensor, images: Tensor, tolerance: float | None = None) -> None:
    """Raise WrongDerivativeError where the products `images` [P, 2] with `pair` [P, 2] are no symmetric matrix's.

    `tolerance` is beside the products' size, ASYMMETRY of the pair's dtype unless given.
    """
    there, back, size = asymmetry_of(pair, images)
    if abs(there - back) > (tolerance or ASYMMETRY.get(pair.dtype, ASYMMETRY[torch.float32])) * size:
        raise WrongDerivativeError(
            f"its products are not symmetric (uᵀHv = {there:.6g}, vᵀHu = {back:.6g} for random u, v): an operation has a wrong "
            "second derivative, as torch's weight_norm has, or another one forwards than backwards, as padding_idx"
        )


def _exact(surface: LossSurface) -> tuple[LossSurface, TermLoss]:
    """The surface in float64 where its few examples have a gradient there and it is not too large for a copy, else as it is."""
    with undisturbed(surface.device):
        if surface.dtype != torch.float64 and surface.size <= MAX_PARAMETERS_IN_FLOAT64 and surface.device.type != "mps":
            try:
                exact = surface.in_dtype(torch.float64)
                loss = loss_of_few(exact.objective)
                value_and_gradient(loss, exact.layout, exact.origin)
            except FAULTS:  # no such kernel, or no memory
                return surface, loss_of_few(surface.objective)
            return exact, loss
        return surface, loss_of_few(surface.objective)
