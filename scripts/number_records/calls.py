"""Every public call whose form is about to change, behind a function: then only this file is edited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from loss_landscape import (
    Alignment,
    Curve,
    Directions,
    Eigenpairs,
    Grid,
    LossSurface,
    PathLosses,
    evaluate_sam_grid,
)

Kind = Literal["loss", "ascent"]
STRATEGIES = {"vectorized": "batched", "traced": "graph", "eager": "loop"}  # the names to come, and today's
LEFT_OUT = ("seconds", "versions")  # what no two records share


def losses_at(surface: LossSurface, displacements: Tensor) -> Tensor:
    """To come: `surface.losses(displacements=displacements)`."""
    return surface.at(displacements)


def losses_along(surface: LossSurface, directions: Sequence[Tensor], coordinates: Tensor) -> Tensor:
    """To come: `surface.plane(directions).losses(coordinates)`."""
    return surface.along(directions, coordinates)


def ascended_losses_along(surface: LossSurface, directions: Sequence[Tensor], coordinates: Tensor, rho: float) -> Tensor:
    """To come: `surface.plane(directions).losses(coordinates, rho=rho)`."""
    return surface.sam_along(directions, coordinates, rho)


def losses_by(
    strategy: str, surface: LossSurface, directions: Sequence[Tensor], coordinates: Tensor, rho: float | None = None
) -> Tensor:
    """The same by a given strategy, four cells at a time. To come: the plane's losses with a `strategy`."""
    path = replace(surface.grid_path(len(directions)), name=STRATEGIES[strategy], chunk=4, compiled=False)
    if rho is None:
        return surface.along(directions, coordinates, path)
    return surface.sam_along(directions, coordinates, rho, path)


def strategy_of(surface: LossSurface, num_directions: int, kind: Kind = "loss") -> dict[str, Any]:
    """What the rule chooses. To come: `surface.strategy(…)`, with the new names."""
    path = surface.grid_path(num_directions, kind)
    return {"name": path.name, "chunk": path.chunk, "compiled": path.compiled, "note": path.note}


def sam_grid(surface: LossSurface, directions: Sequence[Tensor], rho: float, **how: Any) -> Grid:
    """To come: `evaluate_grid(surface, directions, rho=rho, …)`."""
    return evaluate_sam_grid(surface, directions, rho, **how)


def facts_of(info: Mapping[str, Any]) -> dict[str, Any]:
    """What a result tells beside its numbers. To come: typed infos; `dataclasses.asdict` of them, under today's names."""
    return {name: value for name, value in info.items() if name not in LEFT_OUT}


def of_grid(grid: Grid) -> dict[str, Any]:
    """The parts of a grid. To come: `grid.info`."""
    return {
        "losses": grid.losses,
        "evaluated": grid.evaluated,
        "coordinates": list(grid.coordinates),
        "facts": facts_of(grid.meta),
    }


def of_directions(directions: Directions) -> dict[str, Any]:
    """The parts of directions. To come: `directions.info`."""
    return {"vectors": torch.stack(list(directions)), "facts": facts_of(directions.meta)}


def of_path(path: PathLosses) -> dict[str, Any]:
    """The parts of losses along a path. To come: `path.info`."""
    return {
        "t": path.t,
        "losses": path.losses,
        "lengths": path.lengths,
        "barrier": path.barrier,
        "highest": path.highest,
        "mean": path.mean,
        "facts": facts_of(path.meta),
    }


def of_curve(curve: Curve) -> dict[str, Any]:
    """The parts of a curve, with a point on it. To come: `curve.info`."""
    return {"controls": curve.controls, "point": curve.point(0.3), "facts": facts_of(curve.meta)}


def of_alignment(alignment: Alignment) -> dict[str, Any]:
    """The parts of an alignment. To come: `alignment.info`."""
    return {
        "state": dict(alignment.state),
        "permutations": list(alignment.permutations),
        "distance_before": alignment.distance_before,
        "distance": alignment.distance,
        "facts": facts_of(alignment.meta),
    }


def of_pairs(pairs: Eigenpairs) -> dict[str, Any]:
    """The parts of eigenpairs."""
    names = ("values", "vectors", "residuals", "converged", "num_top", "products", "verified", "note")
    return {name: getattr(pairs, name) for name in names}
