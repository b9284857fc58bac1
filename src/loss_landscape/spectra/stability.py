"""How sharp a place an optimizer's step size can bear: the edge of stability."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from loss_landscape.surface.optimizer_state import adam_states
from loss_landscape.surface.surface import LossSurface, require_surface


def adam_preconditioner(surface: LossSurface, model: nn.Module, optimizer: Adam) -> Tensor:
    """The diagonal [P] that Adam divides by as it stands: (1 − β₁ᵗ)(√(exp_avg_sq / (1 − β₂ᵗ)) + ε), the largest one in AMSGrad.

    `surface` says which parameters, `model` is the net whose parameters the `optimizer` holds. A step is −η · exp_avg / diagonal
    (Cohen et al. 2022). Raises ValueError for an optimizer that is not Adam or AdamW, or that has not taken a step.

    >>> adam = torch.optim.Adam(model.parameters(), eps=0.0)
    >>> model.weight.grad = torch.tensor([[3.0, 4.0]])
    >>> adam.step()
    >>> adam_preconditioner(LossSurface(model, nn.MSELoss(), batches), model, adam)  # (1 − 0.9) |gradient| after a step
    tensor([0.3000, 0.4000])
    """
    require_surface(surface)
    _require_adam(optimizer)
    parts = []
    for group, state in adam_states(surface, model, optimizer):
        (beta1, beta2), step = group["betas"], float(state["step"])
        squares = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"].double()
        parts.append((1 - beta1**step) * ((squares / (1 - beta2**step)).sqrt() + group["eps"]))
    return surface.layout.flatten(parts).to(surface.origin)


def stability_thresholds(optimizer: Optimizer) -> list[float]:
    """The curvature above which each parameter group's steps diverge on a quadratic loss, in the order of `param_groups`.

    For SGD as `optimizer`, compared with the largest eigenvalue of the Hessian: 2/η, with momentum (2 + 2β)/η (over
    1 − dampening), with Nesterov's (2 + 2β)/((1 + 2β)η). For Adam and AdamW, compared with that of the preconditioned Hessian:
    (2 + 2β₁)/((1 − β₁)η), 38/η at β₁ = .9 (Cohen et al. 2021, 2022). Weight decay that is added to the gradient is a part of the
    loss: give the surface that regularizer; AdamW's is reckoned with here, its 2 being 2 − ηλ. Infinite where η is 0. Raises
    ValueError for another optimizer.

    >>> stability_thresholds(torch.optim.SGD(model.parameters(), lr=0.5))
    [4.0]
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
