"""Losses and gradients, and planes of them, by every strategy."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loss_landscape import (
    Directions,
    LossSurface,
    Shard,
    adam_directions,
    bottleneck_distance,
    check_deterministic,
    custom_directions,
    difference_directions,
    eigenpairs,
    gradient_directions,
    hessian_directions,
    merge_tree,
    persistence_barcode,
    random_directions,
    three_point_directions,
    trajectory_directions,
)
from number_records import calls
from number_records.nets import Case, with_adam
from number_records.record import Record

ASCENDED = ("own", "regularized", "batch_norm_batch", "batch_norm_recompute")  # tracing the ascent takes seconds


def drawn(seed: int) -> torch.Generator:
    """A generator of its own for each entry."""
    return torch.Generator().manual_seed(seed)


def surfaces(case: Case, record: Record) -> None:
    """Losses and gradients of a surface and of the surfaces made of it."""
    surface = case.surface()
    record.take(
        "surface/weights",
        lambda: {"weights": list(surface.objective.batch_weights.values), "weighting": surface.objective.batch_weights.rule},
    )
    record.take("surface/layout", lambda: {"names": surface.layout.names, "shapes": str(surface.layout.shapes)})
    record.take("surface/deterministic", lambda: check_deterministic(surface))
    for name, make in variants(case, surface):
        record.take(f"surface/{name}", lambda make=make: probed(make()))
        if name in ASCENDED:
            record.take(f"surface/{name}/ascended", lambda make=make: ascended(make()))


def variants(case: Case, surface: LossSurface) -> Iterator[tuple[str, Any]]:
    """The surface, and others of the same net and data, by name."""
    head = f"{surface.layout.names[-1].rpartition('.')[0]}.*"
    step = 0.05 * torch.randn(surface.size, generator=drawn(5), dtype=torch.float64).to(surface.origin)
    yield "own", lambda: surface
    yield "restricted", lambda: surface.restricted(head)
    yield "moved", lambda: surface.moved_to(surface.origin + step)
    yield "in_halves", lambda: surface.in_halves()
    yield "in_float64", lambda: surface.in_dtype(torch.float64)
    yield "regularized", lambda: case.surface(regularizer=lambda net: 1e-3 * sum(p.square().sum() for p in net.parameters()))
    yield "batch_weights", lambda: case.surface(batch_weight=lambda batch: float(len(batch[1])) ** 2)
    yield (
        "batch_loss",
        lambda: LossSurface(
            case.model,
            batches=case.batches,
            batch_loss=lambda net, batch: case.loss_fn(net(batch[0]), batch[1]) + 1e-3 * net(batch[0]).square().mean(),
            dtype=case.dtype,
        ),
    )
    for batch_norm in ("batch", "recompute") if case.has_batch_norm else ():
        yield f"batch_norm_{batch_norm}", lambda how=batch_norm: case.surface(batch_norm=how)
        yield (
            f"batch_norm_{batch_norm}_moved",
            lambda how=batch_norm: case.surface(batch_norm=how).moved_to(surface.origin + step),
        )


def probed(surface: LossSurface) -> dict[str, Any]:
    """The loss, the losses of some points and on a plane, and gradients."""
    steps = 0.1 * torch.randn(3, surface.size, generator=drawn(6), dtype=torch.float64).to(surface.origin)
    return {
        "loss": surface.loss(),
        "losses": calls.losses_at(surface, steps),
        "along": calls.losses_along(surface, list(steps[:2]), square(3)),
        "gradient": surface.gradient(),
        "gradient_beside": surface.gradient(steps[2]),
    }


def ascended(surface: LossSurface) -> Tensor:
    """The losses one step of ascent away from the points of a plane."""
    axes = 0.1 * torch.randn(2, surface.size, generator=drawn(8), dtype=torch.float64).to(surface.origin)
    return calls.ascended_losses_along(surface, list(axes), square(3)[:4], 0.05)


def square(side: int) -> Tensor:
    """The coordinates of a square plane, [side², 2]."""
    axis = torch.linspace(-1, 1, side, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis)


def grids(case: Case, record: Record) -> None:
    """Directions of every kind, grids on them, and what these have for minima."""
    surface = case.surface()
    planes = {name: record.take(f"directions/{name}", make, calls.of_directions) for name, make in directions(case, surface)}
    planes = {name: axes for name, axes in planes.items() if axes is not None}
    for name, axes in planes.items():
        if name != "custom":
            side = {1: 9, 2: 7, 3: 4}[len(axes)]
            record.take(f"grid/{name}", lambda axes=axes, side=side: grid(surface, axes, resolution=side))
    strategies(surface, planes, record)
    options(surface, planes, record)
    sam(surface, planes, record)
    shards(surface, planes["random"], record)
    topology(surface, planes, record)
    for batch_norm in ("batch", "recompute") if case.has_batch_norm else ():
        record.take(
            f"grid/batch_norm_{batch_norm}",
            lambda how=batch_norm: grid(case.surface(batch_norm=how), planes["random"], resolution=5),
        )


def directions(case: Case, surface: LossSurface) -> Iterator[tuple[str, Any]]:
    """Makers of directions of every kind, by name."""
    for kind in ("filter", "layer", "weight", "model"):
        name = "random" if kind == "filter" else f"random_{kind}"
        yield name, lambda kind=kind: random_directions(surface, count=2, normalization=kind, generator=drawn(1))
    yield "line", lambda: random_directions(surface, count=1, generator=drawn(2))
    yield "volume", lambda: random_directions(surface, count=3, generator=drawn(3), exclude_bn_and_bias=False)
    pairs = eigenpairs(case.hessian(surface), top=2, bottom=1, tolerance=1e-3, generator=drawn(4))
    yield "hessian", lambda: hessian_directions(surface, pairs)
    yield "hessian_extremes", lambda: hessian_directions(surface, pairs, choice="extremes", normalization="model")
    yield "gradient", lambda: gradient_directions(surface, count=2, generator=drawn(5))
    yield "trajectory", lambda: trajectory_directions(surface, case.checkpoints)
    yield "trajectory_of_mean", lambda: trajectory_directions(surface, case.checkpoints[::2], centre="mean", scale="unit")
    yield "difference", lambda: difference_directions(surface, case.other)
    yield "three_points", lambda: three_point_directions(surface, case.other, case.checkpoints[0])
    yield "custom", lambda: custom_directions(surface, surface.gradient())
    net, optimizer = with_adam(case)
    yield "adam", lambda: adam_directions(LossSurface(net, case.loss_fn, case.batches, dtype=case.dtype), net, optimizer)


def grid(surface: LossSurface, axes: Directions, **how: Any) -> dict[str, Any]:
    """A grid's parts."""
    return calls.of_grid(calls.grid(surface, axes, **how))


def strategies(surface: LossSurface, planes: dict[str, Directions], record: Record) -> None:
    """The same cells by every strategy, one cell more than whole chunks; and which the rule chooses."""
    coordinates = square(3)
    for count, name in ((1, "line"), (2, "random"), (3, "volume")):
        record.take(f"strategy/{name}", lambda count=count: calls.strategy_of(surface, count))
        cells = torch.cat([coordinates.flip(1), 0.3 * coordinates], dim=1)[:, :count]
        for strategy in calls.STRATEGIES:
            axes = planes[name]
            record.take(
                f"strategy/{strategy}/{name}",
                lambda s=strategy, axes=axes, cells=cells: calls.losses_by(s, surface, axes, cells),
            )
    record.take("strategy/ascent", lambda: calls.strategy_of(surface, 2, "ascent"))
    for strategy in calls.STRATEGIES:
        record.take(
            f"strategy/{strategy}/ascent",
            lambda s=strategy: calls.losses_by(s, surface, planes["random"], coordinates[:5], rho=0.05),
        )


def options(surface: LossSurface, planes: dict[str, Directions], record: Record) -> None:
    """Grids with what is off unless it is given."""
    plane, line = planes["random"], planes["line"]
    record.take("grid/tolerance", lambda: grid(surface, line, resolution=65, tolerance=0.02))
    record.take(
        "grid/tolerance_plane", lambda: grid(surface, plane, resolution=39, span=(-0.3, 0.3), tolerance=0.05, noise_cells=4)
    )
    record.take("grid/bfloat16", lambda: grid(surface, plane, resolution=5, precision="bfloat16"))
    record.take("grid/chunk", lambda: grid(surface, plane, resolution=5, chunk=3, noise_cells=0))
    record.take("grid/auto_span", lambda: grid(surface, plane, resolution=5, span="auto", noise_cells=2))
    record.take("grid/spans", lambda: grid(surface, plane, resolution=4, span=[(-1.0, 2.0), (0.0, 0.5)], noise_cells=2))
    record.take("grid/far", lambda: grid(surface, line, resolution=9, span=(-1e20, 1e20), noise_cells=2))


def sam(surface: LossSurface, planes: dict[str, Directions], record: Record) -> None:
    """Grids of the loss one step of ascent away."""
    for name, how in {"random": {"resolution": 9, "stride": 2}, "line": {"resolution": 7}, "hessian": {"resolution": 5}}.items():
        if name in planes:
            record.take(
                f"sam_grid/{name}",
                lambda axes=planes[name], how=how: calls.of_grid(calls.sam_grid(surface, axes, 0.05, noise_cells=3, **how)),
            )


def shards(surface: LossSurface, axes: Directions, record: Record) -> None:
    """A grid in two shares, and merged."""
    with tempfile.TemporaryDirectory() as folder:
        partial = Path(folder) / "plane.npz"
        how = {"resolution": 7, "partial": partial, "noise_cells": 2, "chunk": 8}
        for number in range(2):
            record.take(f"grid/shard_{number}", lambda n=number: grid(surface, axes, shard=Shard(n, 2), **how))
        record.take("grid/of_shards", lambda: grid(surface, axes, **how))


def topology(surface: LossSurface, planes: dict[str, Directions], record: Record) -> None:
    """Merge trees and barcodes of a line, a plane and a volume, the loss folded so that there are many minima."""
    bars = []
    for name in ("line", "random", "volume"):
        losses = calls.grid(surface, planes[name], resolution=9 if name == "line" else 5, noise_cells=0).losses
        folded = losses + losses.std() * torch.randn(losses.shape, generator=drawn(7), dtype=torch.float64).numpy()
        for diagonals in (True, False):
            tree = record.take(f"topology/{name}/{diagonals}", lambda f=folded, d=diagonals: merge_tree(f, diagonals=d))
            record.take(
                f"topology/{name}/{diagonals}",
                lambda tree=tree: {
                    "persistence": tree.persistence,
                    "total": tree.total_persistence,
                    "saddle_heights": tree.saddle_heights,
                    "num_minima": tree.num_minima(above=0.01),
                },
            )
        bars.append(record.take(f"topology/{name}/barcode", lambda f=folded: persistence_barcode(f)))
    record.take("topology/bottleneck", lambda: [bottleneck_distance(a, b) for a in bars for b in bars])
