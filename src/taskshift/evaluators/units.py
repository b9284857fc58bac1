"""How many units of each layer are dead, dormant or saturated?"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor

from taskshift.evaluators.evaluator import Artifact, Evaluator, Findings, Measurement, arrays_file
from taskshift.evaluators.layers import matching
from taskshift.metrics import units
from taskshift.metrics.features import Features, of_each_layer
from taskshift.metrics.units import Activity
from taskshift.quantities import Column, Quantity

QUANTITIES = (
    Quantity("dead_fraction", "share of units with hᵢ = 0 throughout", "share", panel="share of dead units", label="all layers"),
    Quantity(
        "dormant_fraction",
        "share of units with E|hᵢ| / mean_k E|h_k| ≤ τ, the mean over the layer's units",
        "share",
        "Sokar et al. 2023; `tau`",
        panel="share of dormant units",
        label="all layers",
        columns=(Column("dormant\nunits", key="dormant_fraction"),),
    ),
    Quantity(
        "saturated_fraction",
        "share of tanh and sigmoid units that are always within ε of an asymptote; absent where there are none",
        "share",
        "`saturation_epsilon`",
        panel="share of saturated units",
        label="all layers",
    ),
    Quantity("<layer>/dead_fraction", "the same for one layer", "share", panel="share of dead units"),
    Quantity("<layer>/dormant_fraction", "the same for one layer", "share", panel="share of dormant units"),
    Quantity("<layer>/saturated_fraction", "the same for one layer", "share", panel="share of saturated units"),
    Quantity("num_units", "units looked at", "units"),
)


class Units(Evaluator):
    """Fractions of units, by layer and over all layers, from the activation outputs on all evaluation examples.

    A convolution's unit is a channel: dead only if it is zero at every position of every example. A unit of leaky_relu, gelu and
    the like is never exactly zero; there, look at the dormant ones.
    """

    quantities = QUANTITIES

    def __init__(self, layers: str = "*", tau: float = 0.025, saturation_epsilon: float = 0.01, save_numpy: bool = True):
        if not 0 <= tau < 1:
            raise ValueError(f"tau is {tau}; it is a share of the layer's mean activity, at least 0 and below 1")
        if not 0 < saturation_epsilon < 0.5:
            raise ValueError(f"saturation_epsilon is {saturation_epsilon}; it is a distance to an asymptote, between 0 and 0.5")
        self.layers, self.tau, self.saturation_epsilon, self.save_numpy = layers, tau, saturation_epsilon, save_numpy

    def __call__(self, measurement: Measurement) -> Findings:
        net = measurement.training.net
        seen = [of_each_layer(net, batch.inputs, self._activity) for batch in measurement.batches]
        chosen = matching(self.layers, seen[0])
        activities = {layer: reduce(operator.or_, (batch[layer] for batch in seen)) for layer in chosen}
        masks = {layer: self._masks(activity) for layer, activity in activities.items()}
        scalars = {f"{layer}/{name}_fraction": _mean([mask]) for layer, of in masks.items() for name, mask in of.items()}
        for name in ("dead", "dormant", "saturated"):
            everywhere = [of[name] for of in masks.values() if name in of]
            scalars |= {f"{name}_fraction": _mean(everywhere)} if everywhere else {}
        scalars |= {"num_units": float(sum(len(activity.mean_abs) for activity in activities.values()))}
        return Findings(scalars, self._files(activities, masks) if self.save_numpy else {})

    def _activity(self, features: Features) -> Activity:
        saturated = units.is_saturated(features.function, features.outputs, self.saturation_epsilon)
        return units.activity(features.outputs, features.unit_axis, saturated)

    def _masks(self, activity: Activity) -> dict[str, Tensor]:
        """Which units are what, [U] float64: 1 or 0, or NaN where the layer's outputs are no numbers."""
        masks = {"dead": units.dead(activity), "dormant": units.dormant(activity, self.tau)}
        if activity.always_saturated is not None:
            masks["saturated"] = activity.always_saturated
        number = torch.where(activity.mean_abs.isfinite().all(), 1.0, math.nan)
        return {name: mask.double() * number for name, mask in masks.items()}

    @staticmethod
    def _files(activities: Mapping[str, Activity], masks: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Artifact]:
        arrays = {f"{layer}.mean_abs": activity.mean_abs for layer, activity in activities.items()}
        arrays |= {f"{layer}.{name}": mask for layer, of in masks.items() for name, mask in of.items()}
        return {"units.npz": arrays_file(**{name: array.cpu().numpy() for name, array in arrays.items()})}


def _mean(masks: list[Tensor]) -> float:
    return torch.cat(masks).mean().item()
