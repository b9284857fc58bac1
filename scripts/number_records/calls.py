"""Every public call whose form is about to change, behind a function: then only this file is edited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from loss_landscape import (
    Alignment,
    Checkpointing,
    Curve,
    Density,
    Directions,
    Eigenpairs,
    Evaluation,
    Grid,
    LossSurface,
    PathLosses,
    evaluate_grid,
)
from loss_landscape.surface.strategy import EvaluationStrategy

Kind = Literal["loss", "ascent"]
STRATEGIES = ("vectorized", "traced", "eager")
LEFT_OUT = ("seconds", "versions")  # what no two records share


def losses_at(surface: LossSurface, displacements: Tensor) -> Tensor:
    """The losses at displacements, by the plain loop."""
    return surface.losses(displacements=displacements)


def losses_along(surface: LossSurface, directions: Sequence[Tensor], coordinates: Tensor) -> Tensor:
    """The losses of a plane, by the strategy that the rule chooses."""
    return surface.plane(directions).losses(coordinates)


def ascended_losses_along(surface: LossSurface, directions: Sequence[Tensor], coordinates: Tensor, rho: float) -> Tensor:
    """The same after an ascent step."""
    return surface.plane(directions).losses(coordinates, rho)


def losses_by(
    strategy: str, surface: LossSurface, directions: Sequence[Tensor], coordinates: Tensor, rho: float | None = None
) -> Tensor:
    """The same by a given strategy, four cells at a time."""
    return surface.plane(directions).evaluate(coordinates, EvaluationStrategy(strategy, 4), rho)


def strategy_of(surface: LossSurface, num_directions: int, kind: Kind = "loss") -> dict[str, Any]:
    """What the rule chooses."""
    found = surface.plane([torch.ones_like(surface.origin)] * num_directions).strategy(kind)
    return {"name": found.name, "chunk": found.chunk, "compiled": found.compiled, "note": found.note}


def grid(surface: LossSurface, directions: Sequence[Tensor], **how: Any) -> Grid:
    """A grid, with the options of its evaluation and of its keeping among the others."""
    evaluation = Evaluation(**{name: how.pop(name) for name in ("chunk", "precision", "noise_cells") if name in how})
    checkpointing = Checkpointing(how.pop("partial", None), how.pop("shard", None))
    return evaluate_grid(surface, directions, **how, evaluation=evaluation, checkpointing=checkpointing)


def sam_grid(surface: LossSurface, directions: Sequence[Tensor], rho: float, *, resolution: int, **how: Any) -> Grid:
    """A grid of the loss after an ascent step, of every `stride`-th cell a side where that divides its steps."""
    return grid(surface, directions, rho=rho, resolution=(resolution - 1) // how.pop("stride", 1) + 1, **how)


def facts_of(info: Mapping[str, Any]) -> dict[str, Any]:
    """What a result tells beside its numbers, in the form that is written to JSON: whatever it tells is compared."""
    return {name: value for name, value in info.items() if name not in LEFT_OUT}


def of_grid(grid: Grid) -> dict[str, Any]:
    """The parts of a grid."""
    return {
        "losses": grid.losses,
        "evaluated": grid.evaluated,
        "coordinates": list(grid.coordinates),
        "facts": facts_of(grid.meta),
    }


def of_directions(directions: Directions) -> dict[str, Any]:
    """The parts of directions."""
    return {"vectors": torch.stack(list(directions)), "facts": facts_of(directions.meta)}


def of_path(path: PathLosses) -> dict[str, Any]:
    """The parts of losses along a path."""
    return {
        "t": path.t,
        "losses": path.losses,
        "lengths": path.lengths,
        "barrier": path.barrier,
        "highest": path.highest,
        "mean": path.mean,
        "facts": facts_of(path.meta) | {"num_bends": path.info.directions.num_control_points - 2},
    }


def of_curve(curve: Curve) -> dict[str, Any]:
    """The parts of a curve, with a point on it."""
    bends = {} if curve.info.steps is None else {"num_bends": curve.num_control_points - 2}
    return {"controls": curve.controls, "point": curve.point(0.3), "facts": facts_of(curve.meta) | bends}


def of_alignment(alignment: Alignment) -> dict[str, Any]:
    """The parts of an alignment."""
    return {
        "state": dict(alignment.state),
        "permutations": list(alignment.permutations),
        "distance_before": alignment.distance_before,
        "distance": alignment.distance,
        "facts": facts_of(alignment.meta),
    }


def of_pairs(pairs: Eigenpairs) -> dict[str, Any]:
    """The parts of eigenpairs."""
    names = ("values", "vectors", "residuals", "converged", "num_top", "verified", "note")
    return {"products": pairs.num_products} | {name: getattr(pairs, name) for name in names}


def of_density(density: Density) -> dict[str, Any]:
    """The parts of a spectral density."""
    names = ("nodes", "weights", "size", "note")
    return {"zero": density.zero_threshold} | {name: getattr(density, name) for name in names}
