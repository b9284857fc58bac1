"""What a run itself logs, whatever it is made of."""

from __future__ import annotations

from taskshift.quantities import OF_THE_METRIC, Column, Quantity

TRAINING = (
    Quantity("global_epoch", "task_idx · epochs + epoch", "epochs"),
    Quantity("task_idx", "the task's number, from 0"),
    Quantity("global_step", "steps of the optimizer so far, over all tasks", "steps"),
    Quantity("samples", "training examples so far, each as often as it was shown", "examples"),
    Quantity("epoch_<metric>", "mean over the epoch's training examples, each before the step on its batch", OF_THE_METRIC),
    Quantity(
        "test_<metric>",
        "mean over the task's test examples after the epoch, in eval mode",
        OF_THE_METRIC,
        "`evaluate_every`",
    ),
    Quantity(
        "val_<metric>",
        "the same over the examples that `validation.size` set aside of the training split",
        OF_THE_METRIC,
        "`validation.size`, `evaluate_every`",
    ),
    Quantity(
        "bin_<metric>",
        "mean over the training examples since the last such row of the task, each before the step on its batch",
        OF_THE_METRIC,
        "`log_every`",
    ),
    Quantity(
        "task_last_epoch_<metric>",
        "`epoch_<metric>` of the task's last epoch",
        OF_THE_METRIC,
        columns=(
            Column("loss", "task_last_epoch_loss", "loss", place=0),
            Column("accuracy", "task_last_epoch_accuracy", "accuracy", place=0),
        ),
    ),
)

COST = (
    Quantity(
        "task/seconds",
        "wall time of the task, its analysis included, over all attempts; of runs that train together that of all of them",
        "s",
        columns=(Column("seconds", key="seconds", place=100),),
    ),
    Quantity("task/memory_mb", "peak memory of the process, or of the GPU where there is one", "MB"),
    Quantity("eigenpairs/seconds", "wall time of the eigenpairs that the evaluators share", "s"),
    Quantity("eigenpairs/products", "products with the Hessian that they took", "products"),
    Quantity("<evaluator>/seconds", "wall time of the evaluator, the shared eigenpairs apart", "s"),
)
