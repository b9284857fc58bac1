"""A step of every learner of conf/learner, written out on a module and its gradients, without the learner's code.

`Twin` is the net beside the learner's. A `Written` says what a step does to it: the slope that the optimizer follows, how the
optimizer steps, what happens after, and which net is measured. The yamls' own hyper-parameters are written here once more.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

LR, MOMENTUM = 0.01, 0.9  # of conf/learner/optimizer/sgd.yaml


@dataclass
class Twin:
    """A net with what a step by hand remembers."""

    net: nn.Module
    gradient: Callable[[nn.Module, Tensor, Tensor], list[Tensor]]
    speed: dict[str, Tensor] = field(default_factory=dict)
    start: dict[str, Tensor] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    draws: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)  # of the present step

    def __post_init__(self):
        self.start = {name: p.detach().clone() for name, p in self.net.named_parameters()}
        self.speed = {name: torch.zeros_like(p) for name, p in self.start.items()}

    def slopes(self, batch) -> dict[str, Tensor]:
        """The loss's gradient at the net, by name."""
        return dict(zip(self.start, self.gradient(self.net, *batch), strict=True))

    @property
    def now(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.net.named_parameters()}


def plain(twin: Twin, batch) -> dict[str, Tensor]:
    return twin.slopes(batch)


def with_penalty(slope: Callable[[Twin, str, Tensor], Tensor]) -> Callable[[Twin, Any], dict[str, Tensor]]:
    """The loss's gradient plus `slope(twin, name, parameter)`."""

    def slopes(twin: Twin, batch) -> dict[str, Tensor]:
        now = twin.now
        extra = {name: slope(twin, name, now[name].clone()) for name in now}
        return {name: g + extra[name] for name, g in twin.slopes(batch).items()}

    return slopes


def noisy(slopes: Callable[[Twin, Any], dict[str, Tensor]], sigma: float) -> Callable[[Twin, Any], dict[str, Tensor]]:
    return lambda twin, batch: {name: g + sigma * twin.draws["gradient"][name] for name, g in slopes(twin, batch).items()}


def ascended(length: Callable[[Tensor, Tensor], Tensor], rho: float) -> Callable[[Twin, Any], dict[str, Tensor]]:
    """The gradient at θ + ρ T²g/‖Tg‖, `length(θ)` giving T."""

    def slopes(twin: Twin, batch) -> dict[str, Tensor]:
        uphill, now = twin.slopes(batch), twin.now
        scaled = {name: length(now[name], g) * g for name, g in uphill.items()}
        total = sum(g.square().sum() for g in scaled.values()).sqrt()
        away = copy.deepcopy(twin.net)
        with torch.no_grad():
            for name, parameter in away.named_parameters():
                parameter += rho * length(now[name], uphill[name]) * scaled[name] / total
        return dict(zip(uphill, twin.gradient(away, *batch), strict=True))

    return slopes


def momentum_step(twin: Twin, slopes: Mapping[str, Tensor], batch) -> None:
    for name, parameter in twin.net.named_parameters():
        twin.speed[name] = MOMENTUM * twin.speed[name] + slopes[name]
        parameter -= LR * twin.speed[name]


def utility_step(twin: Twin, slopes: Mapping[str, Tensor], batch) -> None:
    """UPGD-W: η .01, σ .001, β .999, λ 0."""
    beta, count = 0.999, twin.memory.get("count", 0) + 1
    utility = twin.memory.setdefault("utility", {name: torch.zeros_like(p) for name, p in twin.start.items()})
    for name, value in twin.now.items():
        utility[name] = beta * utility[name] + (1 - beta) * (-slopes[name] * value)
    unbiased = {name: u / (1 - beta**count) for name, u in utility.items()}
    largest = max(u.max().item() for u in unbiased.values())
    assert largest > 0
    for name, parameter in twin.net.named_parameters():
        held = 1 / (1 + torch.exp(-unbiased[name] / largest))
        parameter -= 0.01 * (slopes[name] + 0.001 * twin.draws["optimizer"][name]) * (1 - held)
    twin.memory["count"] = count


def by_depth(lr: Callable[[float, int], float], interval: int = 1) -> Callable[[Twin, Mapping[str, Tensor], Any], None]:
    """Momentum with a learning rate by depth and step; a layer's momentum and it step once in 1 + (interval − 1)(1 − d)."""

    def step(twin: Twin, slopes: Mapping[str, Tensor], batch) -> None:
        count = twin.memory["count"] = twin.memory.get("count", 0) + 1
        layers = [name.rpartition(".")[0] for name, p in twin.net.named_parameters() if p.dim() > 1]
        number = -1
        for name, parameter in twin.net.named_parameters():
            number += parameter.dim() > 1
            depth = number / (len(layers) - 1)
            if count % round(1 + (interval - 1) * (1 - depth)) == 0:
                twin.speed[name] = MOMENTUM * twin.speed[name] + slopes[name]
                parameter -= lr(depth, count - 1) * twin.speed[name]

    return step


def nothing(twin: Twin) -> None: ...


def perturbed(twin: Twin) -> None:
    for name, parameter in twin.net.named_parameters():
        parameter += 1e-5 * twin.draws["perturb"][name]


def clipped(twin: Twin) -> None:
    """κ 2; norm layers' parameters are not of linear layers or convolutions."""
    for module in twin.net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            most = 2.0 / module.weight[0].numel() ** 0.5
            for parameter in module.parameters():
                parameter.copy_(parameter.minimum(torch.tensor(most)).maximum(torch.tensor(-most)))


def decayed(twin: Twin) -> None:
    for parameter in twin.net.parameters():
        parameter -= LR * 1e-4 * parameter


def projected(twin: Twin) -> None:
    for name, parameter in twin.net.named_parameters():
        if parameter.dim() > 1:
            parameter *= (twin.start[name] ** 2).sum().sqrt() / (parameter**2).sum().sqrt()


def followed(twin: Twin) -> None:
    """The tortoise, decay .999, running statistics included."""
    slow = twin.memory.setdefault("tortoise", copy.deepcopy(twin.memory["first"]))
    for mine, its in zip(slow.state_dict().values(), twin.net.state_dict().values(), strict=True):
        mine.copy_(0.999 * mine + 0.001 * its if mine.is_floating_point() else its)


def singular_slope(twin: Twin, name: str, value: Tensor) -> Tensor:
    """Of 10⁻³ [Σ (σ² − 1)² + ‖b‖⁴ + Σ (g² − 1)²], σ = ‖W v‖, v by one power iteration a step."""
    if value.dim() > 1:
        matrix = value.flatten(1)
        vectors = twin.memory.setdefault("right", {})
        before = vectors.get(name, torch.linalg.svd(matrix, full_matrices=False).Vh[0])
        v = matrix.T @ matrix @ before
        v = vectors[name] = v / v.norm()
        square = (matrix @ v).square().sum()
        return 1e-3 * (4 * (square - 1) * torch.outer(matrix @ v, v)).reshape(value.shape)
    if name.endswith("bias"):
        return 1e-3 * 4 * value.square().sum() * value
    return 1e-3 * 4 * (value**2 - 1) * value


def parseval_slope(twin: Twin, name: str, value: Tensor) -> Tensor:
    """Of 10⁻³ ‖W Wᵀ − I‖²: 4 (W Wᵀ − I) W."""
    if value.dim() == 1:
        return torch.zeros_like(value)
    matrix = value.flatten(1)
    return 1e-3 * (4 * (matrix @ matrix.T - torch.eye(len(matrix)).to(matrix)) @ matrix).reshape(value.shape)


l2 = with_penalty(lambda twin, name, value: 1e-4 * value)


@dataclass(frozen=True)
class Written:
    """What a step is made of; switches have tests of their own."""

    slopes: Callable[[Twin, Any], dict[str, Tensor]] = plain
    step: Callable[[Twin, Mapping[str, Tensor], Any], None] = momentum_step
    after: Callable[[Twin], None] = nothing
    measured: Callable[[Twin], nn.Module] = lambda twin: twin.net

    def __call__(self, twin: Twin, batch) -> nn.Module:
        """Carry a step out; return the net that is measured after it."""
        twin.memory.setdefault("first", copy.deepcopy(twin.net))
        slopes = self.slopes(twin, batch)
        with torch.no_grad():
            self.step(twin, slopes, batch)
            self.after(twin)
        return self.measured(twin)


STEPS: Mapping[str, Written] = {
    "backprop": Written(),
    "l2": Written(l2),
    "sam": Written(ascended(lambda value, g: torch.ones_like(g), 0.05)),
    "asam": Written(ascended(lambda value, g: value.abs() + 0.01, 0.5)),
    "l2_init": Written(with_penalty(lambda twin, name, value: 1e-2 * (value - twin.start[name]))),
    "spectral_regularization": Written(with_penalty(singular_slope)),
    "parseval": Written(with_penalty(parseval_slope)),
    "noisy_gradient": Written(noisy(plain, 0.01)),
    "shrink_and_perturb": Written(l2, after=perturbed),
    "shrink_and_perturb_scaled": Written(noisy(l2, 0.01)),
    "cbp": Written(),  # it begins to act at its hundredth step; tests/framework/test_cbp.py has the rest
    **dict.fromkeys(("rr_cbp", "rr_cbp2", "rr_cbp_e2"), Written()),  # likewise; tests/framework/test_rank_restoring.py
    "ccbp": Written(),  # as redo; tests/framework/test_ccbp.py
    "redo": Written(),  # it acts at its thousandth step; tests/framework/test_redo.py has the rest
    "snr": Written(),  # no unit is silent for long enough; tests/framework/test_snr.py has the rest
    **dict.fromkeys(("ewc", "mas", "si"), Written()),  # no penalty in the first task; tests/framework/test_consolidation.py
    "weight_decay": Written(after=decayed),
    "weight_clipping": Written(after=clipped),
    "normalize_and_project": Written(after=projected),
    "rising_rates": Written(step=by_depth(lambda depth, t: LR * 10 ** (depth - 1))),
    "decaying_rates": Written(step=by_depth(lambda depth, t: LR * math.exp(-1e-5 * (1 - depth) * t))),
    "later_layers_more_often": Written(step=by_depth(lambda depth, t: LR, interval=4)),
    "hare_and_tortoise": Written(after=followed, measured=lambda twin: twin.memory["tortoise"]),
    "upgd": Written(step=utility_step),
    "plasticity_injection": Written(),  # it acts at a switch; tests/framework/test_plasticity_injection.py has the rest
} | dict.fromkeys(("shrink_and_perturb_at_switch", "head_reset", "full_reset", "reset_optimizer", "dash", "fire"), Written())
"""A learner's name → its step within a task."""
