"""The plane that a training trajectory stays closest to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from loss_landscape.directions import Directions, described
from loss_landscape.surface import LossSurface

SLICE = 1 << 20  # entries of a parameter read at a time: checkpoints stay on disk


def trajectory_directions(
    surface: LossSurface,
    checkpoints: Sequence[str | Path | Tensor | Mapping[str, Tensor]],
    count: int = 2,
    *,
    steps: Sequence[float] | None = None,
    scale: Literal["fit", "unit"] = "fit",
) -> Directions:
    """The first `count` principal axes of the checkpoints about the origin, which should be the last of them (Li et al. 2018).

    Checkpoints, first to last, are files of state dicts, state dicts, or vectors [P]. With `fit` all axes have the same length,
    such that the farthest checkpoint is .9 along one; with `unit`, length 1. In `meta`: `explained_variance`, the share of each
    axis in Σ‖θₜ − θ‖²; `trajectory`, for each checkpoint its step, coordinates along the axes, and `residual`, its distance from
    the plane. The axes come from the Gram matrix, in float64, one parameter at a time.
    """
    if scale not in ("fit", "unit"):
        raise ValueError(f"scale must be 'fit' or 'unit', got {scale!r}")
    if len(checkpoints) < 3:
        raise ValueError(f"a trajectory needs 3 checkpoints or more, got {len(checkpoints)}")
    if steps is not None and len(steps) != len(checkpoints):
        raise ValueError(f"expected a step for each of the {len(checkpoints)} checkpoints, got {len(steps)}")
    states = [_opened(surface, checkpoint) for checkpoint in checkpoints]
    gram = _gram(surface, states)  # [T, T]
    if not bool(torch.isfinite(gram).all()):
        raise ValueError("a checkpoint, or the net itself, has parameters that are not finite, so the trajectory has no axes")
    values, mixtures = (part.flip(-1)[..., :count] for part in torch.linalg.eigh(gram))
    # the Gram matrix squares the condition number: below this an axis would be rounding
    if float(values[-1]) <= 1e-10 * float(values[0]):
        raise ValueError(f"the checkpoints span fewer than {count} axes: Σ‖θₜ − θ‖² along them is {values.tolist()}")
    coordinates = mixtures * values.sqrt()  # [T, count], along unit axes
    stretch = float(coordinates.abs().max()) / 0.9 if scale == "fit" else 1.0
    axes = _axes(surface, states, mixtures * (stretch / values.sqrt()))
    residuals = (gram.diagonal() - coordinates.square().sum(dim=1)).clamp_min(0).sqrt()
    meta = {
        "normalization": "none",
        "excluded": [],
        "centred_on": "origin",
        "explained_variance": (values / gram.trace()).tolist(),
        "trajectory": _told(coordinates / stretch, residuals, steps or range(len(states))),
    }
    return described(surface, "trajectory", axes, meta)


def _told(coordinates: Tensor, residuals: Tensor, steps: Sequence[float]) -> list[dict[str, float]]:
    names = ("alpha", "beta", "gamma")[: coordinates.shape[1]]
    return [
        {"step": step, **dict(zip(names, place, strict=True)), "residual": residual}
        for step, place, residual in zip(steps, coordinates.tolist(), residuals.tolist(), strict=True)
    ]


def _opened(surface: LossSurface, checkpoint: str | Path | Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's moving parameters, on disk where it is a file."""
    if isinstance(checkpoint, str | Path):
        checkpoint = torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)
    if isinstance(checkpoint, Tensor):
        return surface.layout.unflatten(checkpoint.detach())
    absent = [name for name in surface.layout.names if name not in checkpoint]
    if absent:
        raise ValueError(f"a checkpoint has no parameter {absent[0]!r}; expected a state dict of the same net, or a vector [P]")
    return {name: checkpoint[name].detach() for name in surface.layout.names}


def _blocks(surface: LossSurface, states: Sequence[Mapping[str, Tensor]]) -> Any:
    """[T, n] of differences from the origin, float64 on the surface's device, slice by slice, in the layout's order."""
    for name, own in surface.layout.unflatten(surface.origin).items():
        flat = [state[name].reshape(-1) for state in states]
        for first in range(0, own.numel(), SLICE):
            part = slice(first, first + SLICE)
            here = own.reshape(-1)[part].double()
            yield torch.stack([tensor[part].to(here) - here for tensor in flat])


def _gram(surface: LossSurface, states: Sequence[Mapping[str, Tensor]]) -> Tensor:
    return sum(block @ block.T for block in _blocks(surface, states)).cpu()


def _axes(surface: LossSurface, states: Sequence[Mapping[str, Tensor]], mixtures: Tensor) -> list[Tensor]:
    mixtures = mixtures.to(surface.device)
    parts = [mixtures.T @ block for block in _blocks(surface, states)]
    return list(torch.cat(parts, dim=1).to(surface.origin))
