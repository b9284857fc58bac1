"""The computing half of the Writer: lines, planes, volumes, paths and curvature of a user's own net."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, Unpack

from torch import Tensor, nn

from loss_landscape.arguments import as_finite, as_seed, as_whole
from loss_landscape.checkpointing import Checkpointing, digest
from loss_landscape.directions.custom import DirectionsLike
from loss_landscape.explorer.axes import RANGE_SCALE, filter_directions, given_directions, path_directions, path_range
from loss_landscape.explorer.kept_batches import kept_batches
from loss_landscape.explorer.loss_choice import chosen_loss
from loss_landscape.explorer.loss_options import LossKeywords, options_from
from loss_landscape.explorer.path import projected
from loss_landscape.explorer.progress_bar import progress_bar
from loss_landscape.explorer.user_loss import UserLoss
from loss_landscape.grids.evaluate import evaluate_grid
from loss_landscape.operators.hessian import HessianOperator
from loss_landscape.randomness import generator_from
from loss_landscape.results.directions import Directions
from loss_landscape.results.grid import Grid
from loss_landscape.results.hessian_metrics import HessianMetrics
from loss_landscape.results.landscape import MODES, Landscape
from loss_landscape.results.trajectory import Trajectory
from loss_landscape.spectra.lanczos import eigenpairs
from loss_landscape.spectra.traces import trace
from loss_landscape.storage.database import LandscapeStorage
from loss_landscape.storage.records import Checkpoint, SurfaceKey
from loss_landscape.surface.surface import LossSurface

GRID_SIZES = {1: 101, 2: 50, 3: 21}
"""Cells a side, by the number of dimensions, unless told."""

MOST_CELLS = 10**8
"""Of a landscape: more take days."""

WIDEST = 1e30
"""What a range stays below, so that parameters in single precision can be moved that far."""

NUM_PROBES = 100  # of the trace

PathMode = Literal["pca", "fixed"]


class Explorer:
    """Samples the loss around a net as it is now, and measures its curvature; keeps what it finds in a storage, where given.

    `model` is the net, `loss_fn` a criterion of (outputs, targets) or a loss of (model, inputs, targets), `data_loader` a loader,
    a data set or a list of batches. `storage` keeps the results, and makes interrupted ones go on where they were. `seed` draws
    the directions and the probes. The rest says how the loss is put together, in the words of `sample_landscape`: regularizer,
    regularizer_weight, custom_loss_fn, model_mode, max_batches, pre_batch_hook, post_batch_hook, batch_weight; given as
    `loss_options`. The net, its mode, gradients and buffers, and all random numbers stay as they were. The regulariser is part of
    the loss and of the curvature. As a context manager it lets go of the batches at the end; the storage stays open.

    Raises ValueError or TypeError, with what to give instead, for a loss whose arguments are not clear, data that can't be read
    again, a net without parameters, and a loss that is not finite at the net itself.

    >>> with Explorer(model, nn.MSELoss(), batches) as explorer:
    ...     explorer.build_line(grid_size=3, range_scale=1.0, directions=[torch.tensor([1.0, 0.0])])
    Landscape(Grid(3, loss 0.5…8.5, centre 2.5, custom, noise 0))
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[..., Tensor] | None = None,
        data_loader: Any = None,
        *,
        storage: LandscapeStorage | None = None,
        seed: int = 42,
        **loss_options: Unpack[LossKeywords],
    ):
        options, seed = options_from(loss_options), as_seed(seed)
        net = model.module if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel) else model
        loss, data = chosen_loss(loss_fn, options), kept_batches(data_loader, options, seed)
        if storage is not None and not isinstance(storage, LandscapeStorage):
            raise TypeError(f"storage must be a LandscapeStorage, or None, got {type(storage).__name__}")
        self.storage, self.seed = storage, seed
        given = UserLoss(net, loss, data, options)
        self._opened: tuple[UserLoss, LossSurface] | None = (given, _with_finite_loss(given.surface()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._opened = None

    @property
    def surface(self) -> LossSurface:
        """The surface that everything is computed on."""
        return self._require_open()[1]

    @property
    def loss(self) -> UserLoss:
        """The net, its loss and its data, as they were given."""
        return self._require_open()[0]

    def build_line(
        self, *, grid_size: int | None = None, range_scale: float | None = None, directions: DirectionsLike | None = None
    ) -> Landscape:
        """The loss along one direction, random with the filters' norms unless given in `directions`.

        `grid_size` and `range_scale` are as in `build_surface`.
        """
        return self.build(1, grid_size=grid_size, range_scale=range_scale, directions=directions)

    def build_surface(
        self, *, grid_size: int | None = None, range_scale: float | None = None, directions: DirectionsLike | None = None
    ) -> Landscape:
        """The loss on a plane through the net, `grid_size` cells a side, `range_scale` units of the directions either way.

        Of random directions one unit is each filter's own norm: 0.1 moves every filter by a tenth of its norm.
        """
        return self.build(2, grid_size=grid_size, range_scale=range_scale, directions=directions)

    def build_volume(
        self, *, grid_size: int | None = None, range_scale: float | None = None, directions: DirectionsLike | None = None
    ) -> Landscape:
        """The loss in a volume around the net: `grid_size`, `range_scale` and `directions` are as in `build_surface`."""
        return self.build(3, grid_size=grid_size, range_scale=range_scale, directions=directions)

    def build(
        self,
        dimensions: int,
        *,
        grid_size: int | None = None,
        range_scale: float | None = None,
        directions: DirectionsLike | None = None,
        checkpointing: Checkpointing = Checkpointing(),
    ) -> Landscape:
        """A landscape of 1, 2 or 3 `dimensions`: `grid_size` cells a side, `range_scale` units of the `directions` either way.

        Where they are not given, directions are random. `checkpointing` says where to keep what is finished, if no storage does.
        """
        if dimensions not in GRID_SIZES:
            raise ValueError(f"a landscape has 1, 2 or 3 dimensions, got {dimensions!r}")
        size = _checked_size(GRID_SIZES[dimensions] if grid_size is None else grid_size, dimensions)
        reach = None if range_scale is None else as_finite(range_scale, "range_scale", above=0, below=WIDEST)
        axes = self.directions(dimensions, directions)
        if reach is None:
            reach = path_range(axes) if axes.info.trajectory else RANGE_SCALE
        facts = {**self._facts(), "range_scale": reach, "mode": MODES[dimensions - 1], "plane": self._plane(axes)}
        facts["directions"] = digest(axes)
        if self.storage is None:
            return Landscape(self._sampled(axes, size, reach, facts, checkpointing))
        key = SurfaceKey(digest([repr((size, facts))]), dimensions, digest([self.surface.origin]), self.seed)
        begun = self.storage.begin(key, axes)
        grid = self._sampled(axes, size, reach, facts, replace(checkpointing, file=begun.partial_file))
        self.storage.finish(begun, grid)
        return Landscape(grid)

    def directions(self, dimensions: int, given: DirectionsLike | None = None) -> Directions:
        """The directions that a landscape of so many dimensions is sampled along: the given ones, else random ones."""
        if given is not None:
            return given_directions(self.surface, given, dimensions)
        return filter_directions(self.surface, dimensions, self.seed)

    def path_directions(self, checkpoints: Sequence[Checkpoint | str | Path], dimensions: int = 2) -> Directions:
        """The first `dimensions` principal axes of the path of `checkpoints` about the net, each as long as its parameters."""
        return path_directions(self.surface, [checkpoint.file for checkpoint in _as_checkpoints(checkpoints)], dimensions)

    def build_trajectory(
        self,
        checkpoints: Sequence[Checkpoint | str | Path],
        *,
        mode: PathMode = "pca",
        directions: DirectionsLike | None = None,
        name: str = "trajectory",
    ) -> Trajectory:
        """Checkpoints on a plane through the net: their places, distances from it, own losses and the plane's losses there.

        With `mode="pca"` the plane is the path's own, with "fixed" that of the `directions`, such as another landscape's. `name`
        tells several paths on one plane apart. `checkpoints` are the Writer's, or files of state dicts, first to last.
        """
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"name must be a word that tells this path from others, got {name!r}")
        if mode not in ("pca", "fixed"):
            raise ValueError(f"mode must be 'pca' or 'fixed', got {mode!r}")
        if (mode == "fixed") != (directions is not None):
            raise ValueError("mode='fixed' takes directions=, such as writer.get_directions(), and mode='pca' finds its own")
        axes = self.path_directions(checkpoints) if directions is None else self._plane_of(directions)
        points = projected(self.loss, self.surface, _as_checkpoints(checkpoints), axes)
        path = Trajectory(tuple(points), mode, axes.info, name, self._plane(axes))
        if self.storage is not None:
            self.storage.save_trajectory(path)
        return path

    def compute_hessian_metrics(self, *, top_k: int = 5, num_probes: int = NUM_PROBES, epoch: float = 0) -> HessianMetrics:
        """The `top_k` largest eigenvalues and the smallest with residuals, and the trace with its standard error.

        The trace takes `num_probes` products, or as many as there are parameters, and is exact then. `epoch` is what it is kept
        under. Raises ValueError for a `top_k` below 1: without a largest one the smallest would be told in its place.
        """
        top_k, num_probes = (
            as_whole(top_k, "top_k", least=1, of="eigenvalues"),
            as_whole(num_probes, "num_probes", least=2, of="products"),
        )
        epoch = as_finite(epoch, "epoch")
        operator = HessianOperator(self.surface)
        pairs = eigenpairs(operator, top=top_k, bottom=1, generator=generator_from(self.seed))
        total = trace(operator, num_products=num_probes, generator=generator_from(self.seed))
        notes = (*self.loss.notes, *filter(None, [operator.note]))
        metrics = HessianMetrics.of(pairs, total, epoch=epoch, notes=notes)
        if self.storage is not None:
            self.storage.save_hessian(metrics)
        return metrics

    def _sampled(self, axes: Directions, size: int, reach: float, facts: dict[str, Any], checkpointing: Checkpointing) -> Grid:
        with progress_bar(facts["mode"]) as progress:
            shown = checkpointing if checkpointing.progress else replace(checkpointing, progress=progress)
            grid = evaluate_grid(self.surface, axes, size, reach, checkpointing=shown)
        return replace(grid, info=replace(grid.info, extra={**grid.info.extra, **facts}))

    def _facts(self) -> dict[str, Any]:
        """How the loss was put together, for the record."""
        loss, surface = self._require_open()
        options = loss.options
        return {
            "loss": loss.loss.called,
            "model": type(loss.model).__name__,
            "num_parameters": surface.size,
            "num_batches": len(surface.objective.batch_weights.values),
            "max_batches": options.max_batches,
            "model_mode": options.model_mode,
            "regularizer": options.regularizer is not None,
            "regularizer_weight": float(options.regularizer_weight) if options.regularizer is not None else None,
            "seed": self.seed,
            "gradient_norm": float(surface.gradient().double().norm()),
            "notes": loss.notes,
        }

    def _plane(self, axes: Directions) -> str:
        """The fingerprint of a plane: the net, and the directions through it."""
        return digest([self.surface.origin, *axes])

    def _plane_of(self, directions: DirectionsLike) -> Directions:
        given = directions if isinstance(directions, Directions) else tuple(directions)
        return given_directions(self.surface, directions, len(given))

    def _require_open(self) -> tuple[UserLoss, LossSurface]:
        if self._opened is None:
            raise ValueError("this Explorer is closed; make another one")
        return self._opened


def _checked_size(grid_size: int, dimensions: int) -> int:
    """`grid_size` is the Writer's word for the library's resolution."""
    size = as_whole(grid_size, "grid_size", least=2, of="cells a side")
    if size**dimensions > MOST_CELLS:
        raise ValueError(
            f"grid_size={size} makes {float(size) ** dimensions:.0e} cells, and a landscape has {MOST_CELLS:.0e} at most"
        )
    return size


def _as_checkpoints(given: Sequence[Checkpoint | str | Path]) -> list[Checkpoint]:
    """Files are those of epochs 0, 1, …"""
    listed = [] if isinstance(given, str | Path) or not isinstance(given, Iterable) else list(given)
    if not listed or not all(isinstance(one, Checkpoint | str | Path) for one in listed):
        raise TypeError(f"checkpoints must be a list of the Writer's checkpoints, or of files of state dicts, got {given!r:.80}")
    found = [one if isinstance(one, Checkpoint) else Checkpoint(at, Path(one)) for at, one in enumerate(listed)]
    absent = next((one for one in found if not one.file.is_file()), None)
    if absent is not None:
        raise FileNotFoundError(
            f"there is no file {absent.file}, the checkpoint of epoch {absent.epoch:g}; put it back, or give the others alone"
        )
    return found


def _with_finite_loss(surface: LossSurface) -> LossSurface:
    loss = surface.loss()
    if loss - loss != 0:  # NaN or infinite
        raise ValueError(
            f"the loss at the model's own parameters is {loss}, so there is no landscape around it; look for a diverged "
            "training, or for data that are not finite"
        )
    return surface
