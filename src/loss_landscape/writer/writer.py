"""A folder of landscapes, checkpoints and paths of a user's own training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, Unpack

from torch import Tensor, nn

from loss_landscape.arguments import as_finite, as_number_or_none, as_path, as_seed
from loss_landscape.directions.custom import DirectionsLike
from loss_landscape.explorer.explorer import Explorer, PathMode
from loss_landscape.explorer.loss_options import LossKeywords
from loss_landscape.objective.functional_net import check_callable_with_other_parameters
from loss_landscape.results.directions import Directions
from loss_landscape.results.hessian_metrics import HessianMetrics
from loss_landscape.results.landscape import MODES, Landscape
from loss_landscape.results.trajectory import Trajectory
from loss_landscape.storage.database import LandscapeStorage, now
from loss_landscape.storage.records import Checkpoint, LandscapeRecord
from loss_landscape.writer.checkpoint_files import require_same_net, write_checkpoint
from loss_landscape.writer.export import export_record
from loss_landscape.writer.metadata import full_record
from loss_landscape.writer.mirror import LogFunction, Mirror, numbers_of

DirectionMode = Literal["random", "pca"]
Found = TypeVar("Found", Landscape, Trajectory, HessianMetrics)


class LossLandscapeWriter:
    """Samples landscapes of a net, records its training, and keeps both in a folder.

    `log_dir` holds landscape.duckdb, the checkpoints, and landscape.json, which `close` writes unless `auto_export` is False.
    Opened again, a folder has all that was in it, and goes on with what was interrupted. `seed` draws directions and probes from
    generators of its own; the user's net and random numbers stay as they were. `mirror` is handed the numbers that are found:
    `wandb.log` or another function of a dict, `SummaryWriter.add_scalar` or another one of a name and a number.

    Raises ValueError for a mirror that takes neither, ImportError without duckdb, StorageInUseError where somebody writes to the
    folder, and UnreadableFileError for a damaged one.

    >>> with LossLandscapeWriter("runs/exp1") as writer:
    ...     writer.sample_landscape(model, batches, nn.MSELoss(), grid_size=3, directions=torch.eye(2), range_scale=1.0)
    Landscape(Grid(3×3, loss 0…10, centre 2.5, custom, noise 0))
    """

    def __init__(self, log_dir: str | Path, *, seed: int = 42, auto_export: bool = True, mirror: LogFunction | None = None):
        self.log_dir = as_path(log_dir, "log_dir", such_as="runs/exp1").absolute()  # the training may go to another folder
        self.seed, self.auto_export = as_seed(seed), auto_export
        self._mirror = Mirror(mirror)
        self.storage = LandscapeStorage(self.log_dir / "landscape.duckdb")
        if "created_at" not in self.storage.facts():
            self.storage.save_fact("created_at", now())
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.close()
        else:  # what is finished is in the storage; an export that fails as well would hide the error
            self._closed = True
            self.storage.close()

    def __repr__(self) -> str:
        return f"LossLandscapeWriter({str(self.log_dir)!r}, {self.storage!r})"

    def sample_landscape(
        self,
        model: nn.Module,
        data_loader: Any,
        loss_fn: Callable[..., Tensor] | None = None,
        *,
        mode: Literal["1d", "2d", "3d"] = "2d",
        grid_size: int | None = None,
        range_scale: float | None = None,
        directions: DirectionsLike | None = None,
        direction_mode: DirectionMode = "random",
        **loss_options: Unpack[LossKeywords],
    ) -> Landscape:
        """The loss on a line, a plane or in a volume through the net, kept as a surface of its own.

        `data_loader` is a loader, a data set or a list of batches, `loss_fn` a criterion of (outputs, targets) or a loss of
        (model, inputs, targets). `grid_size` is how many cells a side has (101, 50, 21 by mode), `range_scale` how far it reaches
        in units of the directions: 0.1, or for "pca" as far as the path does. `directions` overrides `direction_mode`: "random"
        ones have each filter's own norm, so that 0.1 moves every filter by a tenth of it, "pca" those of the recorded
        checkpoints, each as long as the parameters. The `loss_options` are regularizer, regularizer_weight, custom_loss_fn,
        model_mode ("eval" or "train"), max_batches (10; None is all), pre_batch_hook, post_batch_hook and batch_weight.
        """
        if mode not in MODES:
            raise ValueError(f"mode must be '1d', '2d' or '3d', got {mode!r}")
        if direction_mode not in ("random", "pca"):
            raise ValueError(f"direction_mode must be 'random' or 'pca', got {direction_mode!r}")
        dimensions = MODES.index(mode) + 1
        with self._explorer(model, data_loader, loss_fn, loss_options) as explorer:
            if directions is None and direction_mode == "pca":
                directions = explorer.path_directions(self._recorded(), dimensions)
            landscape = explorer.build(dimensions, grid_size=grid_size, range_scale=range_scale, directions=directions)
        return self._told(landscape, self._last_epoch())

    def record_checkpoint(
        self,
        model: nn.Module,
        epoch: float,
        *,
        train_loss: float | Tensor | None = None,
        val_loss: float | Tensor | None = None,
        learning_rate: float | None = None,
    ) -> Path:
        """Write the net's parameters and buffers to disk and say where; an epoch that is recorded again takes the former's place.

        Those after it are then superseded: training went back. Their files stay. `model` is the net, `train_loss`, `val_loss` and
        `learning_rate` are kept beside it. Raises ValueError for what is no number, and for a net with other parameters than the
        one recorded before; what was recorded stays.
        """
        epoch = as_finite(epoch, "epoch")
        losses = as_number_or_none(train_loss, "train_loss"), as_number_or_none(val_loss, "val_loss")
        rate = None if learning_rate is None else as_finite(learning_rate, "learning_rate")
        if rate is not None and rate < 0:
            raise ValueError(f"learning_rate must be 0 or more, got {rate:g}")
        check_callable_with_other_parameters(model)
        earlier = [one for one in self.storage.checkpoints() if one.epoch < epoch]
        if earlier:
            require_same_net(model, earlier[-1])
        file = write_checkpoint(self.log_dir / "checkpoints", model, number=self.storage.num_checkpoints(), epoch=epoch)
        self.storage.save_checkpoint(Checkpoint(epoch, file, *losses, rate))
        return file

    def add_losses(self, *, train_loss: float | Tensor | None = None, val_loss: float | Tensor | None = None) -> None:
        """Keep losses that came to be known only after the last checkpoint was recorded: `train_loss`, `val_loss` of its epoch.

        Raises ValueError where there is no checkpoint yet.
        """
        recorded = self.storage.checkpoints()
        if not recorded:
            raise ValueError("no checkpoint was recorded yet, so there is none to add losses to; call record_checkpoint first")
        train, val = as_number_or_none(train_loss, "train_loss"), as_number_or_none(val_loss, "val_loss")
        last = recorded[-1]
        losses = (last.train_loss if train is None else train, last.val_loss if val is None else val)
        self.storage.save_checkpoint(Checkpoint(last.epoch, last.file, *losses, last.learning_rate))

    def checkpoints(self) -> Sequence[Checkpoint]:
        """What was recorded, first to last."""
        return self.storage.checkpoints()

    def build_trajectory(
        self,
        model: nn.Module,
        data_loader: Any,
        loss_fn: Callable[..., Tensor] | None = None,
        *,
        mode: PathMode = "pca",
        directions: DirectionsLike | None = None,
        checkpoints: Sequence[Checkpoint] | None = None,
        name: str = "trajectory",
        **loss_options: Unpack[LossKeywords],
    ) -> Trajectory:
        """The recorded checkpoints on a plane through `model`: places, distances from it, own losses and the plane's there.

        `data_loader` and `loss_fn` are as in `sample_landscape`. With `mode="pca"` the plane is the path's own, with "fixed" that
        of `directions`, or of the last landscape. Another run's path is laid on this plane by its `checkpoints`, such as
        `other_writer.checkpoints()`, under a `name` of its own. The `loss_options` are those of `sample_landscape`.
        """
        path = self._recorded() if checkpoints is None else checkpoints
        if mode == "fixed" and directions is None:
            directions = self.get_directions()
        with self._explorer(model, data_loader, loss_fn, loss_options) as explorer:
            trajectory = explorer.build_trajectory(path, mode=mode, directions=directions, name=name)
        return self._told(trajectory, trajectory.points[-1].epoch)

    def compute_hessian_metrics(
        self,
        model: nn.Module,
        data_loader: Any,
        loss_fn: Callable[..., Tensor] | None = None,
        *,
        top_k: int = 5,
        epoch: float = 0,
        **loss_options: Unpack[LossKeywords],
    ) -> HessianMetrics:
        """The `top_k` largest eigenvalues, the smallest and the trace, with their errors, kept under `epoch`.

        `model`, `data_loader`, `loss_fn` and the `loss_options` are as in `sample_landscape`.
        """
        with self._explorer(model, data_loader, loss_fn, loss_options) as explorer:
            metrics = explorer.compute_hessian_metrics(top_k=top_k, epoch=epoch)
        return self._told(metrics, metrics.epoch)

    def get_directions(self) -> Directions:
        """The directions that the last landscape was really sampled along, for another Writer's `directions=`."""
        sampled = list(self.storage.finished())
        if not sampled:
            raise ValueError("no landscape was sampled yet, so there are no directions; call sample_landscape first")
        return self.storage.directions_of(sampled[-1])

    def record(self) -> LandscapeRecord:
        """All that an export tells: the last landscape of each mode, paths, curvature, and facts about their making."""
        return full_record(self.storage)

    def export(self, path: str | Path | None = None) -> Path:
        """Write what was sampled to `path`, landscape.json in the folder unless given; the ending says which kind of file."""
        return export_record(self.log_dir / "landscape.json" if path is None else path, self.record())

    def close(self) -> None:
        """Write landscape.json, if anything was sampled, and let go of the folder; once more does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            record = self.record() if self.auto_export else LandscapeRecord()
            if record.grids or record.trajectories or record.hessians:
                export_record(self.log_dir / "landscape.json", record)
        finally:
            self.storage.close()

    def _explorer(
        self, model: nn.Module, data_loader: Any, loss_fn: Callable[..., Tensor] | None, loss_options: LossKeywords
    ) -> Explorer:
        return Explorer(model, loss_fn, data_loader, storage=self.storage, seed=self.seed, **loss_options)

    def _told(self, found: Found, epoch: float) -> Found:
        self._mirror.tell(*numbers_of(found), epoch)
        return found

    def _last_epoch(self) -> float:
        recorded = self.storage.checkpoints()
        return recorded[-1].epoch if recorded else 0.0

    def _recorded(self) -> Sequence[Checkpoint]:
        recorded = self.storage.checkpoints()
        if len(recorded) < 3:
            raise ValueError(
                f"a path needs 3 recorded checkpoints or more, and {self.log_dir} has {len(recorded)}; call "
                "writer.record_checkpoint(model, epoch) while the model trains"
            )
        return recorded
