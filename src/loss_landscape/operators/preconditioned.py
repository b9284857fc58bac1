"""A curvature matrix in the coordinates of a preconditioner."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from loss_landscape.operators.base import CurvatureOperator, as_operator


class PreconditionedOperator(CurvatureOperator):
    """D^(−1/2) H D^(−1/2), with the eigenvalues of D⁻¹H, for an operator H and the diagonal [P] > 0 of D.

    `operator` is H, `diagonal` D's. With `adam_preconditioner` its largest eigenvalue is the preconditioned sharpness, which
    decides whether Adam is stable (Cohen et al. 2022). ValueError where the diagonal has another size or an entry ≤ 0.

    >>> scaled = PreconditionedOperator(HessianOperator(surface), torch.tensor([8.0, 1.0]))
    >>> scaled @ torch.eye(2)  # 4/8 and 1/1
    tensor([[0.5000, 0.0000],
            [0.0000, 1.0000]])
    """

    def __init__(self, operator: CurvatureOperator | Tensor, diagonal: Tensor):
        operator = as_operator(operator)
        super().__init__(operator.size, operator.dtype, operator.device)
        if diagonal.shape != (operator.size,) or not bool((diagonal > 0).all()):
            raise ValueError(
                f"expected the diagonal of a preconditioner, {operator.size} entries > 0, got {list(diagonal.shape)} with a "
                f"smallest of {float(diagonal.min()):.6g}"
            )
        self.operator = operator
        self._scale = diagonal.detach().double().rsqrt().to(operator.device, operator.dtype)[:, None]

    def matmat(self, vectors: Tensor) -> Tensor:
        return self._scale * (self.operator @ (self._scale * vectors))

    def fingerprint(self) -> Iterable[Tensor | str]:
        """That of the operator, and the scaling."""
        return [*self.operator.fingerprint(), self._scale]
