"""How sharp a place an optimizer's step size can bear: the edge of stability."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from loss_landscape.operators.base import CurvatureOperator
from loss_landscape.surface.optimizer_state import adam_states
from loss_landscape.surface.surface import LossSurface


class PreconditionedOperator(CurvatureOperator):
    """D^(−1/2) H D^(−1/2), with the eigenvalues of D⁻¹H, for an operator H and the diagonal [P] > 0 of D.

    With `adam_preconditioner` its largest eigenvalue is the sharpness that Adam feels (Cohen et al. 2022).
    """

    def __init__(self, operator: CurvatureOperator, diagonal: Tensor):
        super().__init__(operator.size, operator.dtype, operator.device)
        if diagonal.shape != (operator.size,) or not bool((diagonal > 0).all()):
            raise ValueError(
                f"expected the diagonal of a preconditioner, {operator.size} entries > 0, got {list(diagonal.shape)} with a "
                f"smallest of {float(diagonal.min()):.6g}"
            )
        self.operator = operator
        self.block = operator.block
        self._scale = diagonal.detach().double().rsqrt().to(operator.device, operator.dtype)[:, None]

    def matmat(self, vectors: Tensor) -> Tensor:
        return self._scale * (self.operator @ (self._scale * vectors))


def adam_preconditioner(surface: LossSurface, model: nn.Module, optimizer: Adam) -> Tensor:
    """The diagonal [P] that Adam divides by as it stands: (1 − β₁ᵗ)(√(exp_avg_sq / (1 − β₂ᵗ)) + ε), the largest one in AMSGrad.

    `model` is the net whose parameters the optimizer holds. A step is −η · exp_avg / diagonal.
    """
    _require_adam(optimizer)
    parts = []
    for group, state in adam_states(surface, model, optimizer):
        (beta1, beta2), step = group["betas"], float(state["step"])
        squares = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"].double()
        parts.append((1 - beta1**step) * ((squares / (1 - beta2**step)).sqrt() + group["eps"]))
    return surface.layout.flatten(parts).to(surface.origin)


def stability_thresholds(optimizer: Optimizer) -> list[float]:
    """The curvature above which each parameter group's steps diverge on a quadratic loss, in the order of `param_groups`.

    For SGD, compared with the largest eigenvalue of the Hessian: 2/η, with momentum (2 + 2β)/η (over 1 − dampening), with
    Nesterov's (2 + 2β)/((1 + 2β)η). For Adam and AdamW, compared with that of the preconditioned Hessian:
    (2 + 2β₁)/((1 − β₁)η), 38/η at β₁ = .9 (Cohen et al. 2021, 2022). Weight decay that is added to the gradient is a part of the
    loss: give the surface that regularizer; AdamW's is reckoned with here, its 2 being 2 − ηλ. Infinite where η is 0.
    """
    if isinstance(optimizer, SGD):
        return [_over(group["lr"], _sgd_factor(group)) for group in optimizer.param_groups]
    _require_adam(optimizer)
    return [_over(group["lr"], _adam_factor(group)) for group in optimizer.param_groups]


def _over(learning_rate: float | Tensor, factor: float) -> float:
    return factor / float(learning_rate) if learning_rate else math.inf


def _sgd_factor(group: Mapping[str, Any]) -> float:
    momentum = group["momentum"]
    if not momentum:
        return 2.0  # then torch ignores dampening
    if group["nesterov"]:
        return (2 + 2 * momentum) / (1 + 2 * momentum)
    return (2 + 2 * momentum) / (1 - group["dampening"])


def _adam_factor(group: Mapping[str, Any]) -> float:
    beta = float(group["betas"][0])
    decay = float(group["lr"]) * group["weight_decay"] if group["decoupled_weight_decay"] else 0.0
    return (2 - decay) * (1 + beta) / (1 - beta)


def _require_adam(optimizer: Optimizer) -> None:
    if not isinstance(optimizer, Adam):
        raise ValueError(f"the edge of stability is known here for SGD, Adam and AdamW, got {type(optimizer).__name__}")
