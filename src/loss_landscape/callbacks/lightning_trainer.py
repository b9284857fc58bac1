"""A callback for Lightning's Trainer; `lightning`, or `pytorch_lightning`, must be installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from torch import Tensor

from loss_landscape.callbacks.recorder import Finding, TrainingRecorder, check_recording
from loss_landscape.explorer.loss_options import LossKeywords
from loss_landscape.writer.writer import LossLandscapeWriter

if TYPE_CHECKING:
    from lightning.pytorch import Callback
else:
    try:
        from lightning.pytorch import Callback
    except ModuleNotFoundError:
        from pytorch_lightning import Callback


class LandscapeCallback(Callback):
    """Records a LightningModule while it trains, and measures it when the training is over.

    `writer`, `loss_fn`, `every`, `hessian_every`, `at_end` and the `loss_options` are as in `TrainingRecorder`; the loss is one
    of what the module's `forward` gives, or a `custom_loss_fn` of (module, inputs, targets) or (module, batch). `data_loader` is
    what the landscapes are of, the Trainer's own training data unless given; `logged` has the names under which the module logs
    its losses in training, with `on_epoch=True`, and in validation. The loss is tried on one batch before the first epoch. Of
    several processes the first one alone records and measures, while the others wait.

    >>> from lightning.pytorch import Trainer  # doctest: +SKIP
    >>> Trainer(callbacks=[LandscapeCallback("runs/exp1", nn.CrossEntropyLoss())])  # doctest: +SKIP
    """

    def __init__(
        self,
        writer: LossLandscapeWriter | str | Path,
        loss_fn: Callable[..., Tensor] | None = None,
        *,
        data_loader: Any = None,
        every: int = 1,
        hessian_every: int | None = None,
        at_end: Sequence[Finding] = ("2d", "trajectory", "hessian"),
        logged: tuple[str, str] = ("train_loss", "val_loss"),
        **loss_options: Unpack[LossKeywords],
    ):
        super().__init__()
        check_recording(writer, (every, hessian_every, at_end), loss_options)  # before a Trainer is set up
        if not isinstance(logged, tuple | list) or len(logged) != 2 or not all(isinstance(name, str) for name in logged):
            raise ValueError(f"logged must be the names of two losses, such as ('train_loss', 'val_loss'), got {logged!r}")
        self._writer, self._loss_fn, self._data, self._logged = writer, loss_fn, data_loader, logged
        self._options: dict[str, Any] = {"every": every, "hessian_every": hessian_every, "at_end": at_end, **loss_options}
        self._recorder: TrainingRecorder | None = None
        self._rate: float | None = None  # of the last step
        self._is_validated = False  # the present epoch

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the folder, and try the loss."""
        if trainer.is_global_zero:
            data = trainer.train_dataloader if self._data is None else self._data
            recorder = TrainingRecorder(self._writer, pl_module, data, self._loss_fn, **self._options)
            self._recorder = recorder.__enter__()
        trainer.strategy.barrier("landscape opened")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Note that this epoch has a loss of its own in validation: what Lightning shows is the last one's until the next."""
        self._is_validated = not trainer.sanity_checking

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Note the step's learning rate: at the epoch's end schedulers have moved it on."""
        self._rate = optimizer.param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep the net of this epoch."""
        if self._recorder is None:
            return
        told, (train, val) = trainer.callback_metrics, self._logged
        losses = {
            "train_loss": told.get(f"{train}_epoch", told.get(train)),
            "val_loss": told.get(val) if self._is_validated else None,
        }
        self._is_validated = False
        self._recorder.record(trainer.current_epoch, learning_rate=self._rate, **losses)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure what the training came to."""
        if self._recorder is not None:
            recorder, self._recorder = self._recorder, None
            recorder.__exit__(None)
        trainer.strategy.barrier("landscape measured")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Let go of the folder, with what was recorded."""
        if self._recorder is not None:
            recorder, self._recorder = self._recorder, None
            recorder.__exit__(type(exception))
