"""How well and how fast does the net learn this task, and would a new net do better?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from taskshift.evaluation import averages, of_examples, standard_errors
from taskshift.evaluators.evaluator import Evaluator, Findings, Measurement, Row, json_file
from taskshift.progress import EpochSums, of_steps
from taskshift.quantities import OF_THE_METRIC, OF_THE_VALUE, Column, Quantity
from taskshift.randomness import generator
from taskshift.shifts.task import Batch, Task
from taskshift.training import Training

QUANTITIES = (
    Quantity(
        "test_<metric>",
        "mean over the task's test examples",
        OF_THE_METRIC,
        columns=(
            Column(None, "test_loss", "test_loss", place=10),
            Column("test\naccuracy", "test_accuracy", "test_accuracy", place=10),
        ),
    ),
    Quantity("num_test_examples", "the task's test examples", "examples"),
    Quantity(
        "test_<metric>_standard_error",
        "standard deviation over the test examples / √their number: how far `test_<metric>` is from that of all such examples",
        OF_THE_VALUE,
    ),
    Quantity("train_<metric>", "mean over the task's training examples, at most `max_train_examples` of them", OF_THE_METRIC),
    Quantity("first_epoch_<metric>", "`epoch_<metric>` of the task's first epoch", OF_THE_METRIC),
    Quantity(
        "first_epoch_test_<metric>",
        "`test_<metric>` after the task's first epoch, where it was measured then",
        OF_THE_METRIC,
        "`evaluate_every`",
    ),
    Quantity(
        "area_under_<metric>",
        "mean of `epoch_<metric>` over the task's epochs: the area under the curve of the examples as they came, per epoch",
        OF_THE_METRIC,
    ),
    Quantity("control_<quantity>", "the same of the control net", OF_THE_METRIC, "`control`"),
    Quantity("gap_<quantity>", "`<quantity>` − `control_<quantity>`", OF_THE_METRIC, "`control`"),
    Quantity(
        "gap_test_<metric>_standard_error",
        "the same of the gap: both nets see the same examples, so that it is of the differences example by example",
        OF_THE_VALUE,
        "`control`",
    ),
)


class Plasticity(Evaluator):
    """Test and train metrics, the first epoch, the area under the task's learning curve; by option a control net beside them.

    The control is a new net with a new optimizer that is trained on this task alone, on the same batches in the same order for
    as many epochs. A task that is merely harder lowers both; a gap between the two is plasticity lost. It doubles the cost of
    training. At a task's start there is no curve and no control.
    """

    quantities = QUANTITIES

    def __init__(self, control: bool = False, max_train_examples: int | None = 10_000, batch_size: int = 256):
        if max_train_examples is not None and max_train_examples < 1:
            raise ValueError(f"max_train_examples is {max_train_examples}; give at least 1, or null for all")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; give at least 1")
        self.control, self.max_train_examples, self.batch_size = control, max_train_examples, batch_size

    def __call__(self, measurement: Measurement) -> Findings:
        found = self._standing(measurement, measurement.training) | learning_curve(measurement.rows)
        tested = self._tested(measurement, measurement.training)
        sampling = {"num_test_examples": float(len(measurement.task.test))} | _errors("test", tested)
        if not self.control or measurement.phase == "start":
            return Findings(found | sampling)
        control = measurement.fresh_training()
        rows = self._train(measurement, control)
        control_found = self._standing(measurement, control) | learning_curve(rows)
        gaps = {f"gap_{name}": value - control_found[name] for name, value in found.items() if name in control_found}
        of_control = self._tested(measurement, control)
        sampling |= _errors("gap_test", {name: values - of_control[name] for name, values in tested.items()})
        scalars = found | {f"control_{name}": value for name, value in control_found.items()} | gaps
        return Findings(scalars | sampling, {"control.json": json_file(rows)})

    def _tested(self, measurement: Measurement, training: Training) -> dict[str, Tensor]:
        """The loss and the metrics of each test example, by a net as it is now."""
        batches = measurement.stream.batches(measurement.task, measurement.task.test, self.batch_size)
        return of_examples(training.net, measurement.task, batches)

    def _standing(self, measurement: Measurement, training: Training) -> dict[str, float]:
        """The metrics on the task's test and training examples, by a net as it is now."""
        splits = {"test": measurement.task.test, "train": self._train_examples(measurement)}
        found = {}
        for split, examples in splits.items():
            batches = measurement.stream.batches(measurement.task, examples, self.batch_size)
            means = averages(training.net, measurement.task, batches)
            found |= {f"{split}_{name}": value for name, value in means.items()}
        return found

    def _train_examples(self, measurement: Measurement) -> Tensor:
        """The task's training examples, or a part of them drawn once for the task."""
        train = measurement.task.train
        if self.max_train_examples is None or len(train) <= self.max_train_examples:
            return train
        order = torch.randperm(len(train), generator=generator(measurement.seed, "plasticity", measurement.task.index))
        return train[order[: self.max_train_examples].to(train.device)]

    def _train(self, measurement: Measurement, training: Training) -> list[dict[str, float]]:
        """Train `training` as the run's own was trained on the task; its rows, one an epoch."""
        task, stream, rows = measurement.task, measurement.stream.apart(), []
        training.begin(replace(task, index=0))  # its first task: nothing to switch from
        if measurement.rows:
            first = next(measurement.stream.apart().epoch(task, 0, actor=training))
            training.use_programs_of(measurement.training, task, first)
        for epoch, epoch_row in enumerate(measurement.rows):
            means = _learn(training, task, training.in_a_row(stream, task, epoch))
            training.end_epoch(task, means)
            row = {f"epoch_{name}": value for name, value in means.items()}
            if "test_loss" in epoch_row:
                batches = stream.batches(task, task.test, self.batch_size)
                row |= {f"test_{name}": value for name, value in averages(training.net, task, batches).items()}
            rows.append(row)
        return rows


def learning_curve(rows: Sequence[Row]) -> dict[str, float]:
    """What the task's epochs say of its speed: nothing where there are none.

    `first_epoch_<metric>` and `area_under_<metric>` are of the training examples as they came, each before the step on its batch;
    their mean over equally long epochs is the area under that curve. `first_epoch_test_<metric>` is of the test split after the
    first epoch, where it was measured then.
    """
    if not rows:
        return {}
    metrics = [name.removeprefix("epoch_") for name in rows[0] if name.startswith("epoch_")]
    found = {f"first_epoch_{name}": rows[0][f"epoch_{name}"] for name in metrics}
    found |= {f"first_epoch_{name}": value for name, value in rows[0].items() if name.startswith("test_")}
    return found | {f"area_under_{name}": _mean([row[f"epoch_{name}"] for row in rows]) for name in metrics}


def _errors(prefix: str, values: Mapping[str, Tensor]) -> dict[str, float]:
    return {f"{prefix}_{name}": error for name, error in standard_errors(values).items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _learn(training: Training, task: Task, batches: Iterable[Batch]) -> Mapping[str, float]:
    """One epoch of batches in a row, inputs [K, B, …]; the loss and metrics of its examples as they came."""
    sums = EpochSums()
    for some in batches:
        steps = training.learn_all(task, some)
        sums.add_values(some.targets.shape[1], of_steps(task, steps, some.targets.flatten(0, 1)))
    return sums.means()
