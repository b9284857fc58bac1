"""A landscape in one call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Unpack

from torch import Tensor, nn

from loss_landscape.checkpointing import Checkpointing
from loss_landscape.explorer.explorer import Explorer
from loss_landscape.explorer.loss_options import LossKeywords
from loss_landscape.results.landscape import MODES, Landscape
from loss_landscape.storage.database import now
from loss_landscape.storage.records import LandscapeRecord
from loss_landscape.writer.export import export_record, writable
from loss_landscape.writer.metadata import landscape_facts, system_facts


def sample_landscape(
    model: nn.Module,
    data_loader: Any,
    loss_fn: Callable[..., Tensor] | None = None,
    output_path: str | Path = "landscape.json",
    *,
    mode: Literal["1d", "2d", "3d"] = "2d",
    seed: int = 42,
    grid_size: int | None = None,
    range_scale: float | None = None,
    **options: Unpack[LossKeywords],
) -> Landscape:
    """The loss on a plane through a net, along random directions with its filters' norms, also written to a file.

    `model` is the net, `data_loader` a loader, a data set or a list of batches, `loss_fn` a criterion of (outputs, targets) or a
    loss of (model, inputs, targets). The ending of `output_path` says which kind of file is written. `mode` "1d" is a line, "3d"
    a volume, `grid_size` how many cells a side has, `range_scale` how far it reaches, 0.1 unless given: a tenth of each filter's
    norm either way. `seed` draws the directions. The other `options` are those of `LossLandscapeWriter.sample_landscape`.
    Interrupted, the same call goes on where it was. It needs no database. Raises ValueError or TypeError, with what to give.

    >>> sample_landscape(model, batches, nn.MSELoss(), "landscape.json", grid_size=3)
    Landscape(Grid(3×3, loss 1.921…3.219, centre 2.5, random, noise ...))
    """
    if mode not in MODES:
        raise ValueError(f"mode must be '1d', '2d' or '3d', got {mode!r}")
    path = writable(output_path)  # before anything is computed
    checkpointing = Checkpointing(path.with_name(f".unfinished.{path.stem}.npz"))
    with Explorer(model, loss_fn, data_loader, seed=seed, **options) as explorer:
        dimensions = MODES.index(mode) + 1
        landscape = explorer.build(dimensions, grid_size=grid_size, range_scale=range_scale, checkpointing=checkpointing)
    grids = {landscape.mode: landscape.grid}
    facts = {"experiment": path.stem, **landscape_facts(grids), "system": system_facts(), "created_at": now()}
    export_record(path, LandscapeRecord(grids, metadata=facts))
    return landscape
