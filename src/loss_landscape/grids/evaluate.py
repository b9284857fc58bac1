"""Losses on grids: lines, planes and volumes through a surface's origin."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

from loss_landscape.checkpointing import Checkpointing, require_options
from loss_landscape.directions.custom import DirectionsLike, as_directions
from loss_landscape.grids.cells import GridCells
from loss_landscape.grids.grid_spec import GridSpec
from loss_landscape.grids.job import GridJob
from loss_landscape.grids.refinement import check_tolerance
from loss_landscape.grids.span import AutoSpan, Span, axes_over, found_span
from loss_landscape.results.grid import Grid
from loss_landscape.sharpness.sam import sam_loss
from loss_landscape.surface.eager_losses import checked_rho
from loss_landscape.surface.strategy import Evaluation
from loss_landscape.surface.surface import LossSurface
from loss_landscape.surface.traced_loss import Kind


def evaluate_grid(
    surface: LossSurface,
    directions: DirectionsLike,
    resolution: int | Sequence[int] = 41,
    span: Span = (-1.0, 1.0),
    *,
    rho: float | None = None,
    tolerance: float | None = None,
    evaluation: Evaluation = Evaluation(),
    checkpointing: Checkpointing = Checkpointing(),
) -> Grid:
    """The loss of `surface` at origin + Σ_d c_d·directions[d] for every cell of a regular grid.

    One to three `directions`, as `as_directions` takes them. `resolution` is how many cells a side has, or such a number for
    each. `span` is (low, high) for all, such a pair for each, or x for (−x, x); "auto" is the power of two at which the loss has
    risen tenfold, and `AutoSpan` says by how much instead. The cell at the origin, where there is one (odd resolutions), is the
    surface's own loss, and `info.centre_difference` tells how far the grid's own way was from it there.

    With `rho` each cell has the loss one ascent step away, L(θ + ρ g/‖g‖) with g the gradient at θ, SAM's surface (Foret et al.
    2021); ρ is absolute.

    `tolerance`, for lines and planes: cells are evaluated level by level, each twice as fine as the last, until a level's new
    cells, predicted from the level before, and 64 random ones of the next, predicted from this one, are all within it
    (|L̂ − L|/|L|). The rest is then the prediction, and False in the grid's `evaluated`; `info.refinement` has the errors
    measured. It saves most where the loss is smooth, and nothing below 38 cells a side or where a cell is not finite.

    `evaluation` says how cells are evaluated and checked: the centre, the three lowest cells and `noise_cells` random ones
    are computed in float64 as well, by default fewer of a convnet on a CPU (see `Evaluation`), and `info.noise` has the
    differences. The first cells, up to eight random ones (one in 25 cells) and those that are further from float64 than rounding
    explains are also evaluated by the plain loop, and the grid goes over to that where they differ. With `checkpointing` it goes
    on where it was interrupted, with the same bits. With its `shard` only a share of the chunks is evaluated and kept beside its
    `file`; what comes back is the grid as far as it is known, NaN and False in `evaluated` elsewhere. A call without one, of the
    same grid and file, takes up what shards have kept, evaluates what is still missing, and gives the bits that it would have
    given alone. Directions, strategy and the loss at the origin are those of the first shard, and on disk for all.

    Raises ValueError, saying what to give, for any other option, and TimeoutError where it would take too many hours.

    >>> grid = evaluate_grid(surface, torch.eye(2), 3)
    >>> grid.losses  # (4(1 + α)² + (1 + β)²)/2
    array([[ 0. ,  0.5,  2. ],
           [ 2. ,  2.5,  4. ],
           [ 8. ,  8.5, 10. ]])
    >>> grid
    Grid(3×3, loss 0…10, centre 2.5, custom, noise 0)
    """
    require_options(checkpointing, "file", "shard", "progress", "max_hours", by="evaluate_grid")
    directions = as_directions(surface, directions)
    if not 1 <= len(directions) <= 3:
        raise ValueError(f"expected 1, 2 or 3 directions, got {len(directions)}")
    check_tolerance(tolerance, len(directions))
    if checkpointing.shard is not None and tolerance is not None:
        raise ValueError("a shard takes no tolerance: levels wait for each other")
    plane, baseline, search = surface.plane(directions, copy=False), surface.loss, None
    if rho is not None:
        baseline = functools.partial(sam_loss, surface, checked_rho(rho))
    if isinstance(span, str) and span == "auto" or isinstance(span, AutoSpan):
        wanted = span if isinstance(span, AutoSpan) else AutoSpan()
        span, search = found_span(plane, wanted, baseline=baseline(), rho=rho)
    cells = GridCells(plane, axes_over(span, resolution, len(directions)), rho)
    kind: Kind = "loss" if rho is None else "ascent"
    strategy = plane.strategy(kind, num_cells=len(cells.coordinates), evaluation=evaluation)
    job = GridJob(cells, directions, baseline, strategy, tolerance, evaluation.noise_cells, search, checkpointing)
    if checkpointing.file is not None:
        job = _as_shared(job, surface)
    return job.run() if checkpointing.shard is None else job.run_share(checkpointing.shard)


def _as_shared(job: GridJob, surface: LossSurface) -> GridJob:
    """The same grid as its shards have it, where there are any, or are to be."""
    file, is_shard = job.checkpointing.known_files[0], job.checkpointing.shard is not None
    spec = GridSpec.load(file)
    if spec is None and not is_shard:
        return job
    if spec is None:
        spec = job.checked_spec().save_first(file)
    if not spec.matches(job.spec()):
        if is_shard:
            raise ValueError(f"the shards beside {file} are of another grid; give each grid a partial file of its own")
        return job
    directions = as_directions(surface, spec.directions)
    cells = replace(job.cells, plane=surface.plane(directions, copy=False), rho=spec.rho)
    held = spec.baseline
    return replace(
        job,
        cells=cells,
        directions=directions,
        baseline=lambda: held,
        strategy=spec.strategy,
        span_found=spec.span_found,
        corner_loss=spec.corner,
    )
