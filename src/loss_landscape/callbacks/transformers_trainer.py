"""A callback for the Trainer of transformers, which must be installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from loss_landscape.callbacks.recorder import Finding, TrainingRecorder, check_recording
from loss_landscape.explorer.loss_options import LossKeywords
from loss_landscape.objective.private_copy import private_clone
from loss_landscape.writer.writer import LossLandscapeWriter

IGNORED = -100
"""The label that a loss of transformers leaves out."""
LOGGED = {"loss": "train_loss", "eval_loss": "val_loss"}
"""The Trainer's names for an epoch's losses, and ours."""


def own_loss(model: nn.Module, batch: Any) -> Tensor:
    """The loss that a model of transformers gives when the batch has labels."""
    loss: Tensor | None = model(**batch).loss
    if loss is None:
        raise ValueError(f"{type(model).__name__} gives no loss for a batch of {', '.join(batch)}; give custom_loss_fn=")
    return loss


class LabelCount:
    """How many labels the loss of a batch is the mean over, for losses that a `model` of transformers gives itself.

    Where labels are those of a sequence's next tokens, the first of each is nobody's target: it is tried on the first batch that
    can show it whether the loss changes with these.
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self._first_counts: bool | None = None

    def __call__(self, batch: Any) -> float:
        """That of one batch; raises ValueError where it has no labels."""
        if "labels" not in batch:
            raise ValueError(f"a batch has {', '.join(batch)} and no labels, so how it weighs is unknown; give batch_weight=")
        labels = batch["labels"]
        if labels.is_floating_point():  # of several classes at once, or to be regressed
            return float(labels.numel())
        firsts = labels[..., 0].ne(IGNORED) if labels.dim() > 1 else labels.new_zeros(1)
        if self._first_counts is None and bool(firsts.any()):
            self._first_counts = labels.dim() < 2 or self._changes_with_firsts(batch)
        left_out = int(firsts.sum()) if self._first_counts is False else 0
        return float(int(labels.ne(IGNORED).sum()) - left_out)

    @torch.no_grad()
    def _changes_with_firsts(self, batch: Any) -> bool:
        net = private_clone(self._model).eval()
        labels = batch["labels"].clone()
        labels[..., 0] = IGNORED
        return bool(own_loss(net, batch) != own_loss(net, {**batch, "labels": labels}))


class LandscapeCallback(TrainerCallback):
    """Records a model of transformers while its Trainer trains it, and measures it when the training is over.

    `writer`, `every`, `hessian_every`, `at_end` and the `loss_options` are as in `TrainingRecorder`. The loss is the model's own,
    which it gives for batches with labels, each batch weighing as many labels as it has, unless a `custom_loss_fn` of (model,
    batch) is among the options. `data_loader` is what the landscapes are of, the Trainer's training data unless given. The loss
    is tried on one batch before the first step. Of several processes the first one alone records and measures.

    >>> from transformers import Trainer  # doctest: +SKIP
    >>> Trainer(model, arguments, train_dataset=examples, callbacks=[LandscapeCallback("runs/exp1")])  # doctest: +SKIP
    """

    def __init__(
        self,
        writer: LossLandscapeWriter | str | Path,
        *,
        data_loader: Any = None,
        every: int = 1,
        hessian_every: int | None = None,
        at_end: Sequence[Finding] = ("2d", "trajectory", "hessian"),
        **loss_options: Unpack[LossKeywords],
    ):
        check_recording(writer, (every, hessian_every, at_end), loss_options)  # before a Trainer is set up
        self._writer, self._data = writer, data_loader
        self._options: dict[str, Any] = {"every": every, "hessian_every": hessian_every, "at_end": at_end, **loss_options}
        self._options.setdefault("custom_loss_fn", own_loss)
        self._recorder: TrainingRecorder | None = None
        self._rate: float | None = None  # of the last step

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Open the folder, and try the loss."""
        if not state.is_world_process_zero:
            return
        self._let_go(RuntimeError)  # of a training that failed: nobody tells a callback of transformers
        model, data = given["model"], given["train_dataloader"] if self._data is None else self._data
        options = dict(self._options)
        if options["custom_loss_fn"] is own_loss:
            options.setdefault("batch_weight", LabelCount(model))
        self._recorder = TrainingRecorder(self._writer, model, data, **options).__enter__()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Note the step's learning rate: at the epoch's end the schedule has moved it on."""
        self._rate = given["lr_scheduler"].get_last_lr()[0]

    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Keep the net of this epoch."""
        if self._recorder is not None:
            self._recorder.record(state.epoch, learning_rate=self._rate)

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Keep the losses of the recorded epoch, which the Trainer tells after its end."""
        losses = {name: given["logs"][logged] for logged, name in LOGGED.items() if logged in given["logs"]}
        if self._recorder is not None and losses and state.epoch == self._recorder.last_recorded:
            self._recorder.writer.add_losses(**losses)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Measure what the training came to: where the Trainer goes back to its best net, that one, as of its epoch."""
        if self._recorder is not None and args.load_best_model_at_end and state.best_model_checkpoint is not None:
            best = [row["epoch"] for row in state.log_history if row["step"] == state.best_global_step]
            self._recorder.go_back_to(best[-1])
        self._let_go(None)

    def _let_go(self, kind: type[BaseException] | None) -> None:
        if self._recorder is not None:
            recorder, self._recorder = self._recorder, None
            recorder.__exit__(kind)
