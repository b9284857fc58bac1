"""A training recorded from inside a plain loop, and its landscape at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Literal, Self, Unpack, get_args

from torch import Tensor, nn

from loss_landscape.arguments import as_finite, as_path, as_whole
from loss_landscape.explorer.explorer import Explorer
from loss_landscape.explorer.loss_options import LossKeywords, options_from
from loss_landscape.writer.writer import LossLandscapeWriter

log = logging.getLogger(__name__)

Finding = Literal["1d", "2d", "3d", "trajectory", "hessian"]
FEWEST_CHECKPOINTS = 3


class TrainingRecorder:
    """Records a net while it trains, and measures it at the end.

    `writer` is a LossLandscapeWriter, or the folder of one to be opened; `model`, `data_loader`, `loss_fn` and the `loss_options`
    are what its landscapes are of, as in `LossLandscapeWriter.sample_landscape`. Each `every`-th epoch handed to `record` is kept
    as a checkpoint, each `hessian_every`-th has its curvature measured, if given. `at_end` says what is found when the training
    is over: landscapes ("1d", "2d", "3d"), "trajectory" (the path on its own plane, and this plane's landscape), "hessian".

    As a context manager it tries the loss and its gradient at the beginning, so that what can't be measured is told before the
    training and not after it; a training that fails keeps what was recorded, and finds nothing more.

    Raises ValueError or TypeError, with what to give instead, as the Writer does.

    >>> with TrainingRecorder("runs/recorded", model, batches, nn.MSELoss(), at_end=["trajectory"]) as recorder:
    ...     for epoch in range(4):
    ...         model.weight.data -= 0.1 * torch.tensor([[4.0, 1.0 + epoch]])
    ...         recorder.record(epoch, train_loss=1.0)
    >>> sorted(path.name for path in recorder.folder.iterdir())
    ['checkpoints', 'landscape.duckdb', 'landscape.json']
    """

    def __init__(
        self,
        writer: LossLandscapeWriter | str | Path,
        model: nn.Module,
        data_loader: Any,
        loss_fn: Callable[..., Tensor] | None = None,
        *,
        every: int = 1,
        hessian_every: int | None = None,
        at_end: Sequence[Finding] = ("2d", "trajectory", "hessian"),
        **loss_options: Unpack[LossKeywords],
    ):
        self.every, self.hessian_every, self.at_end = checked_schedule(every, hessian_every, at_end)
        self._opens = not isinstance(writer, LossLandscapeWriter)
        self.writer = writer if isinstance(writer, LossLandscapeWriter) else LossLandscapeWriter(writer)
        self._of, self._options = (model, data_loader, loss_fn), loss_options
        self._num_epochs: int | None = None  # before the present one
        self._epoch = 0.0
        self.last_recorded: float | None = None  # epoch

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return self.writer.log_dir

    def __enter__(self) -> Self:
        try:
            self.check()
        except BaseException as error:
            self._let_go(type(error))
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self._let_go(kind)

    def check(self) -> None:
        """Try the loss and its gradient on one batch; raises what measuring them would raise."""
        model, data, loss_fn = self._of
        options = self._options.copy()
        options["max_batches"] = 1
        with Explorer(model, loss_fn, data, **options) as explorer:
            explorer.surface.gradient()

    def record(
        self,
        epoch: float,
        *,
        train_loss: float | Tensor | None = None,
        val_loss: float | Tensor | None = None,
        learning_rate: float | None = None,
    ) -> None:
        """Keep the net as it is after this `epoch`, if it is to be kept, with `train_loss`, `val_loss` and `learning_rate`."""
        self._epoch = epoch = as_finite(epoch, "epoch")
        number = self._num_epochs = self._num_epochs + 1 if self._num_epochs is not None else self._begin_at(epoch)
        if number % self.every == 0:
            model = self._of[0]
            self.writer.record_checkpoint(model, epoch, train_loss=train_loss, val_loss=val_loss, learning_rate=learning_rate)
            self.last_recorded = epoch
        if self.hessian_every is not None and number % self.hessian_every == 0:
            self._find("hessian")

    def go_back_to(self, epoch: float) -> None:
        """Say that the net is that of an earlier `epoch` again, such as the best one: what is measured is told as of then."""
        self._epoch = epoch
        log.warning("the net is that of epoch %g again, and so is what is measured now", epoch)

    def finish(self) -> None:
        """Find what `at_end` names, of the net as it is now."""
        for finding in self.at_end:
            if finding == "trajectory" and (count := len(self.writer.checkpoints())) < FEWEST_CHECKPOINTS:
                log.warning("no trajectory: it needs %d checkpoints, and %d were recorded", FEWEST_CHECKPOINTS, count)
            else:
                self._find(finding)

    def _begin_at(self, epoch: float) -> int:
        """How many epochs lie before this first one: those since the folder's first, where a training goes on."""
        earlier = [one.epoch for one in self.writer.checkpoints() if one.epoch < epoch]
        return round(epoch - earlier[0]) if earlier else 0

    def _find(self, finding: Finding) -> None:
        if finding == "hessian":
            self.writer.compute_hessian_metrics(*self._of, epoch=self._epoch, **self._options)
        elif finding == "trajectory":
            self.writer.sample_landscape(*self._of, direction_mode="pca", **self._options)
            self.writer.build_trajectory(*self._of, **self._options)
        else:
            self.writer.sample_landscape(*self._of, mode=finding, **self._options)

    def _let_go(self, kind: type[BaseException] | None) -> None:
        if self._opens:
            self.writer.__exit__(kind)


def check_recording(writer: Any, schedule: tuple[Any, Any, Any], loss_options: LossKeywords) -> None:
    """Raise what a TrainingRecorder would raise of these, where its net is not there yet."""
    if not isinstance(writer, LossLandscapeWriter):
        as_path(writer, "writer", such_as="runs/exp1")
    checked_schedule(*schedule)
    options_from(loss_options)


def checked_schedule(
    every: int, hessian_every: int | None, at_end: Sequence[Finding]
) -> tuple[int, int | None, tuple[Finding, ...]]:
    """The same, if they say when to record and what to find; ValueError if not."""
    every = as_whole(every, "every", least=1, of="epochs")
    if hessian_every is not None:
        hessian_every = as_whole(hessian_every, "hessian_every", least=1, of="epochs")
    known = get_args(Finding)
    if isinstance(at_end, str) or not isinstance(at_end, Collection) or any(one not in known for one in at_end):
        raise ValueError(f"at_end must be a list of {', '.join(known)}, got {at_end!r}")
    return every, hessian_every, tuple(at_end)
