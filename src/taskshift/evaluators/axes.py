"""What planes and SAM surfaces share: a grid's options, the Hessian's axes, and its plane, evaluated once for both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from loss_landscape import (
    Checkpointing,
    Directions,
    Evaluation,
    Grid,
    LossSurface,
    Shard,
    evaluate_grid,
    hessian_directions,
)
from loss_landscape.surface.strategy import Precision
from taskshift.evaluators.evaluator import Artifact, Measurement, Request
from taskshift.faults import Fault
from taskshift.randomness import seed_from

HessianAxes = Literal["top", "signed"]
Normalization = Literal["filter", "layer", "weight", "model", "none"]
Span = tuple[float, float] | Literal["auto"]

HIGH_RESOLUTION = 51

LOSS_ERROR = "baseline_loss_standard_error"
"""The entry of a grid's meta that says how far `baseline_loss` may be from that of all such examples."""


@dataclass(frozen=True)
class BatchNormOptions:
    """How norm layers take part."""

    eval_mode_only: bool = True  # false: batch norms use each batch's own statistics instead of the running ones
    exclude_bn_and_bias: bool = False  # true: random axes leave norm layers and biases where they are


RUNNING_STATISTICS = BatchNormOptions()


@dataclass(frozen=True)
class GridOptions:
    """How many cells, how far out, and how the net is evaluated in them."""

    grid_resolution: int
    high_res: bool
    span: Span
    chunk_size: int | None
    max_eval_points_cap: int
    bn: BatchNormOptions
    precision: Precision = None  # of the net: bfloat16, or the surface's own

    def __post_init__(self) -> None:
        if self.grid_resolution < 2:
            raise ValueError(f"grid_resolution is {self.grid_resolution}; give at least 2 cells a side")
        if self.span != "auto" and (not self.span[0] < self.span[1] or not all(map(math.isfinite, self.span))):
            raise ValueError(f"span is {list(self.span)}; give its lower end, then its upper end, as in [-1.0, 1.0], or auto")
        if self.chunk_size is not None and self.chunk_size < 1:
            raise ValueError(f"chunk_size is {self.chunk_size}; give at least 1, or null for the size that suits the net")
        _ = self.resolution  # refuses what is above the cap

    @property
    def resolution(self) -> int:
        """Cells a side."""
        return cells_a_side(self.grid_resolution, cap=self.max_eval_points_cap, high_res=self.high_res)

    def surface(self, measurement: Measurement) -> LossSurface:
        """The task's surface with batch norm as these options want it."""
        if self.bn.eval_mode_only:
            return measurement.surface
        return LossSurface(
            measurement.training.net, measurement.task.loss, measurement.batches, dtype=measurement.dtype, batch_norm="batch"
        )

    def evaluate(
        self,
        measurement: Measurement,
        surface: LossSurface,
        directions: Directions,
        partial: Path,
        shard: Shard | None = None,
    ) -> Grid:
        """The plane along `directions`; what is finished of it is kept in `partial` until it is whole.

        Of a `shard` it has that part alone, which is kept beside `partial`.
        """
        evaluation = Evaluation(measurement.settings.compile, self.chunk_size, self.precision)
        checkpointing = self.checkpointing(measurement, partial, shard)
        options = {"tolerance": measurement.settings.tolerance, "evaluation": evaluation, "checkpointing": checkpointing}
        with too_long_is_a_fault():
            grid = evaluate_grid(surface, directions, self.resolution, self.span, **options)
        if not self.bn.eval_mode_only or shard is not None:  # with a batch's own statistics an example has no loss of its own
            return self.described(grid)
        return with_notes(self.described(grid), **{LOSS_ERROR: measurement.loss_error})

    def checkpointing(self, measurement: Measurement, partial: Path, shard: Shard | None = None) -> Checkpointing:
        """Where what is finished of a grid is kept, and how long it may take."""
        return Checkpointing(partial, shard, max_hours=measurement.settings.abort_if_estimated_hours_over)

    def described(self, grid: Grid) -> Grid:
        """The grid with what these options did to it in its meta."""
        centred = all((axis == 0).any() for axis in grid.coordinates)
        return with_notes(
            grid,
            batch_norm="running statistics" if self.bn.eval_mode_only else "batch statistics",
            centre="a cell" if centred else "between cells: the resolution is even, or the span not symmetric about 0",
        )


def cells_a_side(resolution: int, *, cap: int, high_res: bool) -> int:
    """`resolution` of a plane, which must keep to the cap of cells; with `high_res` 51 at least, without cap."""
    if cap < 9:
        raise ValueError(f"max_eval_points_cap is {cap}; give at least 9, for 3 cells a side")
    if high_res:
        return max(resolution, HIGH_RESOLUTION)
    if resolution**2 > cap:
        side = math.isqrt(cap)
        raise ValueError(
            f"resolution is {resolution}, {resolution**2} cells, more than max_eval_points_cap = {cap}; the largest odd "
            f"resolution that fits is {side - 1 + side % 2}, or set high_res=True"
        )
    return resolution


def with_notes(grid: Grid, **notes: Any) -> Grid:
    """The grid with these entries of our own in its meta.json."""
    return replace(grid, info=replace(grid.info, extra={**grid.info.extra, **notes}))


@contextmanager
def too_long_is_a_fault() -> Iterator[None]:
    """A grid that would take more hours than the measurement allows is the user's to mend: nothing is wrong with it."""
    try:
        yield
    except TimeoutError as error:
        raise Fault(str(error).replace("max_hours", "abort_if_estimated_hours_over")) from error  # the config's name for it


def request(axes: HessianAxes) -> Request:
    """The eigenpairs that these axes take."""
    return Request(top=2) if axes == "top" else Request(top=1, bottom=1)


def hessian_axes(measurement: Measurement, axes: HessianAxes, normalization: Normalization) -> Directions:
    """Eigenvectors of the two largest eigenvalues (`top`), or of the largest and the smallest (`signed`).

    `model` makes each as long as the parameters: then a coordinate means the same relative distance as on a filter-normalised
    random plane, and the axes are still eigenvectors. `none` leaves them at length 1.
    """
    wanted = request(axes)
    pairs = measurement.eigenpairs(wanted.top, wanted.bottom)
    choice = "top2" if axes == "top" else "extremes"
    return hessian_directions(measurement.surface, pairs, choice=choice, normalization=normalization)


@dataclass(frozen=True)
class HessianPlane:
    """The plane along the Hessian's axes: which, how long, and on what grid."""

    axes: HessianAxes
    normalization: Normalization
    options: GridOptions

    def directions(self, measurement: Measurement) -> Directions:
        """Its two axes."""
        return hessian_axes(measurement, self.axes, self.normalization)

    def grid(self, measurement: Measurement) -> Grid:
        """The loss on it; every evaluator of this task and phase that asks for the same one gets this one."""
        return kept(self._place(measurement), partial(self._evaluated, measurement))

    def compute_share(self, measurement: Measurement, shard: Shard) -> None:
        """Compute a shard's part of it, where it is not whole yet."""
        if not is_kept(self._place(measurement)):
            self._evaluated(measurement, shard)

    def _place(self, measurement: Measurement) -> Path:
        name = f"hessian_{self.axes}_{self.normalization}_{seed_from(repr(self.options))}"
        return measurement.scratch.parent / "shared" / name

    def _evaluated(self, measurement: Measurement, shard: Shard | None = None) -> Grid:
        surface, place = self.options.surface(measurement), self._place(measurement)
        unfinished = place.with_name(f"{place.name}.partial.npz")
        return self.options.evaluate(measurement, surface, self.directions(measurement), unfinished, shard)


@dataclass(frozen=True)
class SavedFiles:
    """Which files of a grid the run's folder gets."""

    numpy: bool
    csv: bool
    plots: bool

    def of(self, folder: Path, *, predicted: bool = False) -> dict[str, Artifact]:
        """Copies of those that the grid in `folder` has; `predicted`: with what says which cells were evaluated."""
        wanted = {"grid.npy": self.numpy, "grid.csv": self.csv, "meta.json": True, "evaluated.npy": self.numpy and predicted}
        return {name: copy_of(folder / name) for name, is_wanted in wanted.items() if is_wanted}


def kept(folder: Path, evaluate: Callable[[], Grid]) -> Grid:
    """The grid that `folder` holds, evaluated and saved there first where it holds none."""
    if not is_kept(folder):
        evaluate().save(folder)
    return Grid.load(folder)


def is_kept(folder: Path) -> bool:
    """Whether `folder` holds a whole grid."""
    return (folder / "meta.json").exists()  # the last file that is written


def copy_of(path: Path) -> Artifact:
    """An artifact that is a copy of the file at `path`."""
    return lambda target: target.write_bytes(path.read_bytes())


def text_file(text: str) -> Artifact:
    """An artifact that writes `text`."""
    return lambda target: target.write_text(text, encoding="utf-8")
