"""Weights that a layer makes of its parameters: pruned, weight-normalised, under any of torch's parametrisations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from loss_landscape.objective.functional_net import undisturbed
from loss_landscape.objective.layout import TRANSPOSED
from loss_landscape.surface.surface import LossSurface

STEP = 1e-6  # of a central difference in float64, beside the parameters' size


@dataclass(frozen=True, eq=False)
class EffectiveWeight:
    """A weight that `made_of` moving parameters, by name, make: `unit_dim` is that of its output units."""

    surface: LossSurface
    module: nn.Module
    prefix: str
    compute: Callable[[nn.Module], Tensor]
    made_of: tuple[str, ...]

    @property
    def unit_dim(self) -> int:
        """The dimension of a unit's own weights."""
        return int(isinstance(self.module, TRANSPOSED))

    def moved(self, direction: Tensor) -> tuple[Tensor, Tensor]:
        """The weight at the origin, and its derivative along `direction` [P], in float64."""
        point, along = ({name: part.double() for name, part in self._own(vector).items()} for vector in (None, direction))
        made = _Made(self.module, self.compute)

        def weight(moving: dict[str, Tensor]) -> Tensor:
            found: Tensor = torch.func.functional_call(made, {**point, **moving}, ())
            return found

        start = {name: point[name] for name in along}
        with undisturbed(self.surface.device), torch.no_grad():
            try:
                found = torch.func.jvp(weight, (start,), (along,))
            except NotImplementedError:  # torch's own weight_norm is not differentiable forwards, but smooth
                return weight(start), _difference(weight, start, along)
        return found[0], found[1]

    def _own(self, vector: Tensor | None) -> dict[str, Tensor]:
        """What the module holds, or its part of a `vector` [P], by its names inside `_Made`."""
        net, layout = self.surface.objective.net, self.surface.layout
        if vector is None:
            tensors = {**net.parameters, **net.buffers, **layout.unflatten(self.surface.origin)}
        else:
            tensors = {name: part for name, part in layout.unflatten(vector).items() if name in self.made_of}
        start = len(self.prefix)
        return {f"module.{name[start:]}": tensor for name, tensor in tensors.items() if name.startswith(self.prefix)}


def _difference(weight: Callable[[dict[str, Tensor]], Tensor], start: dict[str, Tensor], along: dict[str, Tensor]) -> Tensor:
    size, length = (sum(float(part.square().sum()) for part in parts.values()) ** 0.5 for parts in (start, along))
    step = STEP * (size or 1.0) / (length or 1.0)
    there, back = (weight({name: part + sign * step * along[name] for name, part in start.items()}) for sign in (1, -1))
    return (there - back) / (2 * step)


class _Made(nn.Module):
    """What `compute` makes of a module, so that functional_call can put other parameters in."""

    def __init__(self, module: nn.Module, compute: Callable[[nn.Module], Tensor]):
        super().__init__()
        self.module, self.compute = module, compute

    def forward(self) -> Tensor:
        return self.compute(self.module)


def effective_weights(surface: LossSurface) -> Iterator[EffectiveWeight]:
    """The weights that modules of the net make of moving parameters."""
    for name, module in surface.objective.net.module.named_modules():
        prefix = f"{name}." if name else ""
        for tensor, compute in _computed(module):
            starts = (
                f"{prefix}parametrizations.{tensor}.",
                f"{prefix}{tensor}_orig",
                f"{prefix}{tensor}_g",
                f"{prefix}{tensor}_v",
            )
            made_of = tuple(each for each in surface.layout.names if each.startswith(starts))
            if made_of:
                yield EffectiveWeight(surface, module, prefix, compute, made_of)


def _computed(module: nn.Module) -> Iterator[tuple[str, Callable[[nn.Module], Tensor]]]:
    """The names of a module's computed tensors, and how each is computed."""
    if parametrize.is_parametrized(module):
        for name in module.parametrizations:  # type: ignore[union-attr]
            yield name, partial(_parametrized, name=name)
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            yield hook.name, hook.compute_weight
        elif isinstance(hook, SpectralNorm):
            yield hook.name, partial(hook.compute_weight, do_power_iteration=False)
        elif isinstance(hook, prune.BasePruningMethod):
            yield hook._tensor_name, hook.apply_mask


def _parametrized(module: nn.Module, name: str) -> Tensor:
    made: Tensor = module.parametrizations[name]()  # type: ignore[index, operator]
    return made
