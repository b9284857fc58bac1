"""The effective learning rate of layers whose scale changes nothing."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from loss_landscape import unit_flow
from taskshift.learners.forward import Forward
from taskshift.learners.interventions import StepScaling
from taskshift.learners.part import Context, Memory, Start, Subject, Tensors
from taskshift.quantities import Quantity
from taskshift.randomness import random_state_kept

POWERS = {"sgd": 2, "adam": 1}
MOST_CHANGED = 0.01  # of the outputs, by a weight's doubling: what a norm's ε may do


class EffectiveRate(StepScaling):
    """Tells, and with `control` holds, the effective learning rate η/‖W‖ᵖ of the weights W that a norm layer follows.

    What comes out of a norm layer does not depend on the scale of the weight before it. Its gradient falls as 1/‖W‖, so that a
    step of SGD turns it by an angle that goes by η/‖W‖², `steps="sgd"`, and one of Adam, whose steps have a size of their own, by
    η/‖W‖, "adam" (van Laarhoven 2017; Lyle et al. 2024, whose projection holds ‖W‖ instead). As norms grow over tasks, such
    layers slow down without anybody having asked for it. With `control` each step is scaled by (‖W‖/‖W₀‖)ᵖ, which undoes that.
    ‖W‖ is the whole weight's Frobenius norm, W₀ the one at the run's start.

    A weight that writes into a residual stream is followed by a norm too, but not alone: its scale counts. Weights are those
    with which, doubled at the start, the net gives the same. A bias before the norm is doubled with its weight: where it is not
    small, the weight's scale alone is not quite free. Beside another part that scales the step, η is still the optimizer's own.

    Raises ValueError for a net in which no norm layer, with a scale of its own, follows a trained weight.
    """

    quantities = (
        Quantity(
            "effective_lr",
            "η/‖W‖ᵖ as it is used, the mean over the layers, summed over the steps",
            "",
            "van Laarhoven 2017; `steps`, `control`",
            panel="effective learning rate, summed over an epoch",
        ),
        Quantity(
            "rotation",
            "angle between a weight before and after the step, the mean over the layers, summed over the steps",
            "radians",
            "Wan et al. 2021, angular update",
            panel="angle that weights turn by in an epoch",
        ),
    )

    def __init__(self, steps: Literal["sgd", "adam"] = "sgd", control: bool = False):
        if steps not in POWERS:
            raise ValueError(f"steps={steps!r} is not known; choose one of {', '.join(POWERS)}")
        self.power, self.control = POWERS[steps], control
        self._weights: tuple[str, ...] = ()  # known after `init`

    def init(self, start: Start) -> Memory:
        flow = unit_flow(start.module, start.example.inputs)
        followed = dict.fromkeys(layer.incoming.tensor for layer in flow.layers if layer.norms)
        outputs = _outputs(start.net, start)
        self._weights = tuple(name for name in followed if name in start.trained and _is_free(name, start, outputs))
        if not self._weights:
            raise ValueError(
                "no norm layer with a scale follows a trained weight, so no layer's own is free; give net.norm=layer or batch"
            )
        return {"norms": {name: start.net[name].norm() for name in self._weights}}

    def after_step(self, subject: Subject, context: Context) -> Subject:
        before, lr = context.net_before, context.optimizer["lr"].to(subject.net[self._weights[0]].dtype)
        norms = {name: before[name].norm() for name in self._weights}
        net, shares = dict[str, Tensor](), dict[str, Tensor]()
        for name, norm in norms.items():
            shares[name] = (norm / subject.memory["norms"][name]) ** self.power if self.control else torch.ones_like(norm)
            net[name] = torch.lerp(before[name], subject.net[name], shares[name])  # exact at share 1
        rates = [lr * shares[name] / norm**self.power for name, norm in norms.items()]
        angles = [_angle(before[name], net[name]) for name in self._weights]
        numbers = {"effective_lr": torch.stack(rates).mean(), "rotation": torch.stack(angles).mean()}
        return subject._replace(net=net if self.control else {}, numbers=numbers)


def _is_free(name: str, start: Start, outputs: Tensor) -> bool:
    """Whether twice the weight, and twice its bias, leave the `outputs` in training as they are, but for a norm's ε."""
    bias = f"{name.rpartition('.')[0]}.bias"
    doubled = {**start.net, **{key: 2 * start.net[key] for key in (name, bias) if key in start.net}}
    return bool((_outputs(doubled, start) - outputs).norm() <= MOST_CHANGED * outputs.norm())


def _outputs(net: Tensors, start: Start) -> Tensor:
    """What the module with these tensors gives in training for the example, by the same random numbers each time."""
    with random_state_kept(start.example.inputs.device), torch.no_grad():
        return Forward(start.module)(net, start.example.inputs)[0]


def _angle(one: Tensor, other: Tensor) -> Tensor:
    """Between two weights, exact for small angles too: 2 atan2(‖â − b̂‖, ‖â + b̂‖)."""
    one, other = one / one.norm(), other / other.norm()
    return 2 * torch.atan2((one - other).norm(), (one + other).norm())
