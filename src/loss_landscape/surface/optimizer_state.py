"""What an Adam-like optimizer keeps for each parameter, in the order of a surface's."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from loss_landscape.surface.surface import LossSurface

MOMENTS = ("exp_avg", "exp_avg_sq")


def adam_moments(surface: LossSurface, model: nn.Module, optimizer: Optimizer) -> tuple[Tensor, Tensor]:
    """The running means of the gradient and of its square, `exp_avg` and `exp_avg_sq`, [P] each, as the optimizer keeps them."""
    states = [state for _, state in adam_states(surface, model, optimizer)]
    first, second = (surface.layout.flatten([state[key] for state in states]) for key in MOMENTS)
    return first.to(surface.origin), second.to(surface.origin)


def adam_states(surface: LossSurface, model: nn.Module, optimizer: Optimizer) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The parameter group and the state of each moving parameter; `model` is the net whose parameters the optimizer holds."""
    parameters = dict(model.named_parameters())
    groups = {parameter: group for group in optimizer.param_groups for parameter in group["params"]}
    found = []
    for name in surface.layout.names:
        state = optimizer.state.get(parameters[name], {}) if name in parameters else {}
        if not all(key in state for key in MOMENTS):
            raise ValueError(
                f"the optimizer has no {' and '.join(MOMENTS)} for {name!r}; give the net that the surface was made from and the "
                "Adam that trains it, after its first step"
            )
        found.append((groups[parameters[name]], state))
    return found
