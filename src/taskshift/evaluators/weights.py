"""How large are the weights, and how far are they from where they began?"""

from __future__ import annotations

from torch import Tensor

from taskshift.evaluators.evaluator import Evaluator, Findings, Measurement
from taskshift.evaluators.layers import matching
from taskshift.metrics import weights
from taskshift.quantities import Quantity

QUANTITIES = (
    Quantity("mean_abs", "Σ|w| / #w over all weights", "θ", "Dohare et al. 2024", panel="mean |weight|", label="all layers"),
    Quantity("norm", "‖θ‖₂, all parameters", "θ", panel="‖θ‖", label="all layers"),
    Quantity(
        "distance_from_init", "‖θ − θ₀‖₂, all parameters", "θ", panel="distance from the initial parameters", label="all layers"
    ),
    Quantity("relative_distance_from_init", "‖θ − θ₀‖₂ / ‖θ₀‖₂", "ratio"),
    Quantity("<layer>/mean_abs", "mean |w| of one layer's weight", "θ", panel="mean |weight|"),
    Quantity("<layer>/norm", "its ‖w‖₂", "θ", panel="‖θ‖"),
    Quantity("<layer>/distance_from_init", "its ‖w − w₀‖₂", "θ", panel="distance from the initial parameters"),
)


class Weights(Evaluator):
    """Mean |w|, norms and distances from the run's initial parameters, over the trainable parameters.

    Mean |w| is taken over weights alone, tensors of two dimensions or more: biases and norm layers' scales would dilute it.
    Norms and distances take in every trainable parameter; a tied one counts once.
    """

    quantities = QUANTITIES

    def __init__(self, layers: str = "*"):
        self.layers = layers

    def __call__(self, measurement: Measurement) -> Findings:
        now = {name: p.detach() for name, p in measurement.training.net.named_parameters() if p.requires_grad}
        matrices = {name: tensor for name, tensor in now.items() if tensor.dim() > 1}
        before = weights.norm(measurement.kept.initial[name] for name in now)
        moved = weights.distance(now, measurement.kept.initial)
        scalars = {
            "mean_abs": weights.mean_abs(matrices.values()),
            "norm": weights.norm(now.values()),
            "distance_from_init": moved,
            "relative_distance_from_init": moved / before,
        }
        names = {name.removesuffix(".weight"): name for name in matrices}
        for layer in matching(self.layers, names):
            found = _of_layer(now[names[layer]], measurement.kept.initial[names[layer]])
            scalars |= {f"{layer}/{name}": value for name, value in found.items()}
        return Findings(scalars)


def _of_layer(weight: Tensor, initial: Tensor) -> dict[str, float]:
    return {
        "mean_abs": weights.mean_abs([weight]),
        "norm": weights.norm([weight]),
        "distance_from_init": weights.distance({"w": weight}, {"w": initial}),
    }
