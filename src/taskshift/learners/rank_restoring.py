"""Continual backprop whose new units answer to what the others do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from loss_landscape import UnitLayer
from taskshift.learners.cbp import ContinualBackprop
from taskshift.learners.interventions import AfterStep
from taskshift.learners.layer_inputs import LayerInput
from taskshift.learners.orthogonal_rows import TINY, energies, orthogonal_rows, variance
from taskshift.learners.part import Context, Memory, Start, Subject, Tensors

Energy = Literal["budget", "unit"]
Metric = Literal["covariance", "second_moment"]
OF_ONE_NUMBER = ("relu", "leaky_relu", "tanh", "sigmoid", "selu", "gelu", "silu", "elu", "softplus", "sin", "cos")


class RankRestoring(AfterStep):
    """Units that continual backprop (`units`) replaces get weights orthogonal to the kept ones' in the inputs' metric Σ.

    Σ is the covariance of what a layer is given (`metric`: or its second moment), over examples, places and patches: running
    averages over steps, decay `input_decay`, corrected for their beginning. Of a unit's fresh incoming weights u, what is
    Σ-orthogonal to the weights of the kept units and to those of the step's other new units is scaled to ‖w‖²_Σ = q:

        unit    q = 1
        budget  q = min(q₀, (n q₀ − Σ_kept ‖w‖²_Σ)/new units), at least `least_energy` q₀, where q₀ = tr Σ / (d χ₀)

    χ₀ = E φ(z)², z standard normal, so that units with q₀ have as their mean square the variance that they are given. No row
    becomes longer than `longest` times what it was drawn as, whatever Σ: directions that the data never move stay as small as
    they are in a fresh net. Where the kept units leave so little that such a row would have less than `least_energy` of what its
    draw has, it is the draw, scaled likewise. The bias becomes −wᵀ mean, so that the unit's input has mean 0; outgoing weights
    are 0. `diagonal` neglects what inputs have in common.

    For linear layers and plain 2-D convolutions; units of others are replaced as `units` does it.
    """

    def __init__(
        self,
        units: ContinualBackprop,
        energy: Energy = "budget",
        metric: Metric = "covariance",
        diagonal: bool = False,
        input_decay: float = 0.99,
        least_energy: float = 0.1,
        longest: float = 2.0,
    ):
        for name, value, known in (("energy", energy, Energy), ("metric", metric, Metric)):
            if value not in get_args(known):
                raise ValueError(f"{name}={value!r} is not known; choose one of {', '.join(get_args(known))}")
        if not 0 <= input_decay < 1:
            raise ValueError(f"input_decay is {input_decay}; running means forget by it, from 0 to below 1")
        if not 0 <= least_energy <= 1:
            raise ValueError(f"least_energy is {least_energy}; it is a share of a unit's due, from 0 to 1")
        if not longest > 0:
            raise ValueError(f"longest is {longest}; a new row's length is limited to so many times its draw's, above 0")
        self.units, self.energy, self.centred, self.diagonal = units, energy, metric == "covariance", diagonal
        self.input_decay, self.least_energy, self.longest = input_decay, least_energy, longest
        self.quantities = units.quantities
        self._inputs: dict[str, LayerInput] = {}  # known after `init`, by weight

    def settings(self) -> Mapping[str, float]:
        own = {name: getattr(self, name) for name in ("input_decay", "least_energy", "longest")}
        return {**self.units.settings(), **own}

    def init(self, start: Start) -> Memory:
        memory = self.units.init(start)
        weights = [layer.incoming.tensor for group in self.units.groups for layer in group.layers if layer.incoming.dim == 0]
        found = {name: LayerInput.of(start.module, name, diagonal=self.diagonal) for name in weights}
        self._inputs = {name: one for name, one in found.items() if one is not None}
        if not self._inputs:
            raise ValueError("no units of this net are made by a linear layer or a plain 2-D convolution; take learner=cbp")
        self.reads = tuple(dict.fromkeys((*self.units.reads, *(one.reading for one in self._inputs.values()))))
        return {"units": memory, "inputs": {name: one.first(start.net[name]) for name, one in self._inputs.items()}}

    def draws(self) -> Mapping[str, Any]:
        return self.units.draws()

    def after_step(self, subject: Subject, context: Context) -> Subject:
        units = context.memory["units"]
        done = self.units.after_step(subject._replace(memory=units), context._replace(memory=units))
        decay, inputs, net = context.settings["input_decay"], {}, dict(done.net)
        for name, one in self._inputs.items():
            inputs[name] = one.followed(context.memory["inputs"][name], context.features, decay)
        for group in self.units.groups:
            chosen = done.memory[group.name]["age"] == 0
            for layer in group.layers:  # its bias, where that is frozen, stays
                if layer.incoming.tensor in self._inputs:
                    made = self._restored(layer, net, chosen, inputs[layer.incoming.tensor], context.settings)
                    net |= {name: tensor for name, tensor in made.items() if name not in group.frozen}
        return done._replace(net=net, memory={"units": done.memory, "inputs": inputs})

    # -- one layer --------------------------------------------------------------------------------------------------

    def _restored(self, layer: UnitLayer, net: Tensors, chosen: Tensor, moments: Tensors, settings: Tensors) -> dict[str, Tensor]:
        """The layer's weight and bias with the `chosen` units' in the others' gaps."""
        slot = layer.incoming
        mean, metric = self._inputs[slot.tensor].metric(moments, settings["input_decay"], centred=self.centred)
        held = slot.of(net[slot.tensor], layer.size)
        rows = held.flatten(1)  # [n, d]; the chosen are as drawn
        at_most = min(self.units.most_at_once(layer.size), layer.size)
        new, order, energy = orthogonal_rows(rows, chosen, metric, at_most=at_most)
        drawn, longest = rows[order], settings["longest"] * rows[order].norm(dim=1, keepdim=True)
        due = self._energy(layer, chosen, energy, metric, settings)
        found, usual = (_with_energy(one, due, metric, longest) for one in (new, drawn))
        is_alive = energies(found, metric) >= settings["least_energy"] * energies(usual, metric)
        kept = ~chosen[order][:, None] | (energies(drawn, metric) == 0)  # 0: the inputs never vary
        rows = rows.index_copy(0, order, torch.where(kept, drawn, torch.where(is_alive, found, usual)))
        changed = {slot.tensor: slot.put(net[slot.tensor], rows.reshape(held.shape))}
        own = f"{slot.tensor.rpartition('.')[0]}.bias"
        for place in layer.bias:
            if place.tensor == own:
                bias = place.of(net[own], layer.size)
                changed[own] = place.put(net[own], torch.where(chosen[:, None], -(rows @ mean)[:, None], bias))
        return changed

    def _energy(self, layer: UnitLayer, chosen: Tensor, energy: Tensor, metric: Tensor, settings: Tensors) -> Tensor:
        """‖w‖² of each new unit, a scalar."""
        if self.energy == "unit":
            return torch.ones_like(energy[0])
        due = variance(metric) / gain(layer.activation)
        left = layer.size * due - torch.where(chosen, 0.0, energy).sum()
        each = (left / chosen.sum().clamp_min(1)).clamp_min(0)
        return torch.minimum(due, each).maximum(settings["least_energy"] * due)


def _with_energy(rows: Tensor, energy: Tensor, metric: Tensor, longest: Tensor) -> Tensor:
    """Rows [r, d] scaled to this energy in the metric, or to the length `longest` [r, 1] where that is shorter."""
    scale = energy.sqrt() / energies(rows, metric).sqrt().clamp_min(TINY)
    return rows * scale.minimum(longest / rows.norm(dim=1, keepdim=True).clamp_min(TINY))


def gain(activation: str) -> float:
    """χ₀ = E φ(z)² for standard normal z, by Gauss and Hermite's quadrature; 1 for what is no function of one number."""
    if activation not in OF_ONE_NUMBER:
        return 1.0
    places, weights = np.polynomial.hermite_e.hermegauss(100)
    function = getattr(torch.nn.functional, activation, None) or getattr(torch, activation)
    return float(function(torch.from_numpy(places)).square() @ torch.from_numpy(weights / weights.sum()))
