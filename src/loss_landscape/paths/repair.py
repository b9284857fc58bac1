"""REPAIR (Jordan et al. 2023): a mixture of two nets whose hidden units vary as much as the two nets' own do.

The units of a mixture vary less than those of either net, deeper ones ever less: much of an aligned pair's barrier is that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from loss_landscape.directions.points import PointLike, point_in
from loss_landscape.objective.functional_net import undisturbed
from loss_landscape.paths.curves import between_nets, line
from loss_landscape.results.info import DirectionInfo, GridInfo
from loss_landscape.results.path_losses import PathLosses
from loss_landscape.surface.surface import LossSurface
from loss_landscape.units.graph import UnitGraph

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
Moments = dict[str, tuple[Tensor, Tensor]]
"""By layer, the mean and the standard deviation of each unit before its activation, float64."""


def repair(surface: LossSurface, start: PointLike, end: PointLike, *, t: float = 0.5) -> Tensor:
    """The mixture (1 − t)·start + t·end with each hidden layer rescaled and shifted, unit by unit, [P].

    Over the surface's batches, each unit's mean and standard deviation before its activation become the mixture of the two nets'
    own (Jordan et al. 2023). It goes layer by layer, with a pass over the data for each. What goes straight into a batch norm is
    left to that: give the surface `batch_norm="recompute"`. A layer without a bias can't be shifted, one that gives the net's
    outputs is no hidden one. At `t` = 0 and 1 the nets themselves come back. `start` and `end` are points as
    `point_in` takes them. Raises ValueError for a surface that does not know a batch's inputs.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> of_net = LossSurface(net, nn.MSELoss(), batches)
    >>> torch.equal(repair(of_net, net, net.state_dict(), t=1.0), of_net.origin)
    True
    """
    return _Mixtures(surface, start, end).repaired(t)


def repaired_line(surface: LossSurface, start: PointLike, end: PointLike, *, num_points: int = 25) -> PathLosses:
    """The losses of the repaired mixtures of two nets at `num_points` even steps of t, ends included.

    All else is as in `repair`: the `surface`, and `start` and `end`, the two nets.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> of_net = LossSurface(net, nn.MSELoss(), batches)
    >>> repaired_line(of_net, net, net.state_dict(), num_points=3).barrier
    0.0
    """
    if num_points < 2:
        raise ValueError(f"num_points must be ≥ 2, got {num_points}")
    mixtures, times = _Mixtures(surface, start, end), np.linspace(0.0, 1.0, num_points)
    losses, lengths, last = [], [], mixtures.line.start
    for t in times:
        point = mixtures.repaired(float(t))
        losses.append(surface.moved_to(point).loss())
        lengths.append(float((point - last).double().norm()))
        last = point
    start, end = (point.double() for point in (mixtures.line.start, mixtures.line.end))
    length, held = float((end - start).norm()), mixtures.line.info.not_moved
    info = DirectionInfo("repaired line", (length,), float(start.norm()), num_control_points=2, not_moved=held)
    return PathLosses(times, np.array(losses), np.cumsum(lengths), GridInfo(info))


class _Mixtures:
    """Two nets, their hidden layers, and what is known of these."""

    def __init__(self, surface: LossSurface, start: PointLike, end: PointLike):
        straight = line(point_in(surface, start), point_in(surface, end))
        self.surface, self.line = surface, between_nets(surface, straight, start, end)
        candidates = _hidden_layers(surface)
        with undisturbed(surface.device), torch.no_grad():
            order, normalised = _order_of_calls(surface, candidates)
            self.layers = [name for name in order if surface.objective.batch_norm == "running" or name not in normalised]
            self.ends = [_moments(surface, point, self.layers) for point in (self.line.start, self.line.end)]

    def repaired(self, t: float) -> Tensor:
        """The repaired mixture at t, [P]."""
        point = self.line.point(t)
        if t in (0.0, 1.0):
            return point
        with undisturbed(self.surface.device), torch.no_grad():
            for layer in self.layers:
                self._rescale(point, layer, t)
        return point

    def _rescale(self, point: Tensor, layer: str, t: float) -> None:
        """Give the units of a layer their mean and deviation, in place."""
        (mean, deviation), *ends = (moments[layer] for moments in (_moments(self.surface, point, [layer]), *self.ends))
        wanted_mean, wanted_deviation = ((1 - t) * first + t * second for first, second in zip(*ends, strict=True))
        factor = torch.where(deviation > 0, wanted_deviation / deviation, 1.0)
        parameters = self.surface.layout.unflatten(point)
        weight, bias = parameters[f"{layer}.weight"], parameters.get(f"{layer}.bias")
        weight.mul_(factor.to(weight).view(-1, *[1] * (weight.dim() - 1)))
        if bias is not None:
            bias.copy_((bias - mean) * factor + wanted_mean)


def _hidden_layers(surface: LossSurface) -> list[str]:
    """The linear layers and convolutions whose outputs are not the net's, and whose weights move and are not tied."""
    if surface.objective.criterion is None:
        raise ValueError("repair needs to know a batch's inputs: give the surface a loss_fn(outputs, targets)")
    net, inputs = surface.objective.net, next(iter(surface.objective.batches))[0]
    graph = UnitGraph.of(net.module, inputs, net.state(surface.layout.unflatten(surface.origin)))
    moving = set(surface.layout.names) - set(graph.aliases) - set(graph.aliases.values())
    modules = [name for name, module in net.module.named_modules() if isinstance(module, LAYERS)]
    return [name for name in modules if f"{name}.weight" in moving and not graph.gives_outputs(f"{name}.weight")]


def _order_of_calls(surface: LossSurface, layers: Collection[str]) -> tuple[list[str], set[str]]:
    """The layers in the order in which a pass calls them, and those whose output goes into a batch norm."""
    called: dict[str, Tensor] = {}
    normalised: set[str] = set()

    def enters_norm(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        normalised.update(name for name, outputs in called.items() if outputs is inputs[0])

    norms = [module for module in surface.objective.net.module.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    handles = [module.register_forward_pre_hook(enters_norm) for module in norms]
    try:
        with _watched(surface.objective.net.module, layers, called.__setitem__):
            _, batch = next(surface.objective.weighted_batches())
            surface.objective.batch_loss(surface.layout.unflatten(surface.origin), batch)
    finally:
        for handle in handles:
            handle.remove()
    return list(called), normalised


def _moments(surface: LossSurface, point: Tensor, layers: Collection[str]) -> Moments:
    """The mean and deviation of the units of `layers` at `point`, over all batches and places."""
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}
    here = surface.moved_to(point)
    net = here.objective.net.module
    with _watched(net, layers, lambda name, outputs: seen[name].append(_summary(outputs, net.get_submodule(name)))):
        for _, batch in here.objective.weighted_batches() if layers else ():
            here.objective.batch_loss(here.layout.unflatten(point), batch)
    return {name: _pooled(torch.stack(parts)) for name, parts in seen.items()}


def _summary(outputs: Tensor, layer: nn.Module) -> Tensor:
    """How many values each unit gave, their mean and their variance, [3, units]."""
    rows = outputs.detach().double().movedim(-1 if isinstance(layer, nn.Linear) else 1, 0).flatten(1)
    count = torch.full_like(rows[:, 0], rows.shape[1])
    return torch.stack([count, rows.mean(dim=1), rows.var(dim=1, correction=0)])


def _pooled(parts: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and deviation of several batches' values together, from [batches, 3, units]."""
    counts, means, variances = parts.unbind(dim=1)
    shares = counts / counts.sum(dim=0)
    mean = (shares * means).sum(dim=0)
    return mean, (shares * (variances + (means - mean).square())).sum(dim=0).sqrt()


@contextmanager
def _watched(net: nn.Module, layers: Collection[str], see: Callable[[str, Tensor], Any]) -> Iterator[None]:
    """Inside, `see(name, outputs)` is called with what each of the layers gives."""
    handles = [
        net.get_submodule(name).register_forward_hook(lambda module, inputs, outputs, name=name: see(name, outputs))
        for name in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
