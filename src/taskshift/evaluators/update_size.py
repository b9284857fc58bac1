"""How large is a step, and does the loss do what the slope and the curvature promise?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from taskshift.evaluators.layers import matching
from taskshift.evaluators.watcher import WatchedStep, Watcher
from taskshift.metrics import weights
from taskshift.quantities import Quantity

SIZE, CHANGE, SHARE = "‖update‖ / ‖θ‖", "change of the batch's loss by a step", "share of that change that is foreseen"

QUANTITIES = (
    Quantity("norm", "‖Δ‖₂", "θ"),
    Quantity("relative_norm", "‖Δ‖₂ / ‖θ‖₂", "ratio", panel=SIZE, label="all layers"),
    Quantity("<layer>/relative_norm", "the same for one layer's weight", "ratio", panel=SIZE),
    Quantity("gradient_norm", "‖g‖₂", "loss / θ", panel="‖gradient‖ on a step's batch"),
    Quantity(
        "cosine",
        "ΔᵀΔ' / (‖Δ‖ ‖Δ'‖), Δ' the update of the step that was watched before this one; absent at a run's first",
        "−1 … 1",
        panel="cosine with the update watched before",
    ),
    Quantity("loss_change", "L(θ + Δ) − L(θ)", "loss", panel=CHANGE, label="what it is"),
    Quantity("first_order", "gᵀΔ", "loss", panel=CHANGE, label="first order"),
    Quantity("second_order", "½ ΔᵀHΔ", "loss", panel=CHANGE, label="second order"),
    Quantity("first_order_share", "`first_order` / `loss_change`", "ratio", panel=SHARE, label="by the first order"),
    Quantity("both_orders_share", "(`first_order` + `second_order`) / `loss_change`", "ratio", panel=SHARE, label="by both"),
    Quantity(
        "sample_plasticity",
        "max(0, 1 − L(θ + Δ) / max(L(θ), 10⁻⁸))",
        "0 … 1",
        "Elsayed and Mahmood 2024, who take one example a step",
        panel="share of the batch's loss that a step takes away",
    ),
)


class UpdateSize(Watcher):
    """A step's update Δ beside the weights, and what it does to the loss on its own batch.

    L is the task's loss on the step's batch in eval mode, without regularisers; g and H are its gradient and Hessian before the
    step. Δ holds all that the step did: gradient, optimizer, decay and interventions. The second order costs a product with the
    Hessian, and can be left out.
    """

    quantities = QUANTITIES

    def __init__(self, every: int = 10, layers: str = "*", second_order: bool = True):
        super().__init__(every)
        self.layers, self.second_order = layers, second_order
        self._last: Tensor | None = None  # the update that was watched before, [P]

    def __call__(self, step: WatchedStep) -> Mapping[str, float]:
        before = {name: step.before["net"][name] for name in step.update}
        found = {"norm": weights.norm(step.update.values())}
        found["relative_norm"] = found["norm"] / weights.norm(before.values())
        found |= self._layers(before, step.update)
        return found | self._cosine(step.update) | self._changes(step)

    def _layers(self, before: Mapping[str, Tensor], update: Mapping[str, Tensor]) -> dict[str, float]:
        """Every layer's own, of its weight alone."""
        names = {name.removesuffix(".weight"): name for name, tensor in before.items() if tensor.dim() > 1}
        pairs = {layer: (update[names[layer]], before[names[layer]]) for layer in matching(self.layers, names)}
        return {f"{layer}/relative_norm": weights.norm([moved]) / weights.norm([was]) for layer, (moved, was) in pairs.items()}

    def _cosine(self, update: Mapping[str, Tensor]) -> dict[str, float]:
        now, last = torch.cat([tensor.flatten() for tensor in update.values()]), self._last
        self._last = now
        return {} if last is None else {"cosine": torch.cosine_similarity(now.double(), last.double(), dim=0, eps=0).item()}

    def _changes(self, step: WatchedStep) -> dict[str, float]:
        """What the loss on the step's batch did, and what its Taylor series at θ says of that."""
        update = step.surface.layout.flatten(step.update).to(step.surface.origin)
        here, there = step.surface.losses(displacements=torch.stack([torch.zeros_like(update), update])).tolist()
        gradient, change = step.surface.gradient().double(), there - here
        found = {"gradient_norm": gradient.norm().item(), "loss_change": change}
        found["first_order"] = (gradient @ update.double()).item()
        found["first_order_share"] = _ratio(found["first_order"], change)
        if self.second_order:
            found["second_order"] = (update.double() @ (step.hessian @ update).double()).item() / 2
            found["both_orders_share"] = _ratio(found["first_order"] + found["second_order"], change)
        return found | {"sample_plasticity": max(0.0, 1 - there / max(here, 1e-8))}

    def state_dict(self) -> dict[str, Any]:
        return {} if self._last is None else {"last": self._last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._last = state.get("last")


def _ratio(one: float, other: float) -> float:
    return one / other if other else float("nan")
