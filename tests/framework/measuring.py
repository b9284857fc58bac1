"""A small task, a learner and what evaluators are given, without a run around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from loss_landscape import Eigenpairs, HessianOperator, eigenpairs
from taskshift import checkpoint
from taskshift.data.labelled_data import LabelledData
from taskshift.evaluators.evaluator import Evaluator, Findings, Kept, MeasuredPhase, Measurement, Row, Settings
from taskshift.learners.learner import Learner
from taskshift.progress import EpochSums
from taskshift.shifts.stationary import Stationary
from taskshift.shifts.task import Batch
from taskshift.stream import TaskStream
from taskshift.training import Training

NUM_CLASSES = 3


def small_data(num_train: int = 40, num_test: int = 12, dtype: torch.dtype = torch.float64) -> LabelledData:
    """Gaussian 4×4 images around a mean for each class."""
    generator, count = torch.Generator().manual_seed(7), num_train + num_test
    targets = torch.arange(count) % NUM_CLASSES
    means = torch.randn(NUM_CLASSES, 1, 4, 4, generator=generator, dtype=torch.float64)
    inputs = means[targets] + torch.randn(count, 1, 4, 4, generator=generator, dtype=torch.float64)
    train, test = torch.arange(count).split([num_train, num_test])
    return LabelledData("small", inputs.to(dtype), targets, train, test, NUM_CLASSES, torch.zeros(1, dtype=dtype))


def mlp(width: int = 5, activation: Callable[[], nn.Module] = nn.Tanh) -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(16, width), activation(), nn.Linear(width, width), activation())
    return nn.Sequential(layers, nn.Linear(width, NUM_CLASSES)).double()


def training_of(net: nn.Module, lr: float = 0.1, **parts) -> Training:
    example = Batch(torch.zeros(2, 1, 4, 4, dtype=torch.float64), torch.tensor([0, 1]))
    return Training(Learner(net, lambda parameters: torch.optim.SGD(parameters, lr=lr), **parts), example)


def solved(evaluator: Evaluator) -> Callable[[Measurement], Eigenpairs]:
    """What `measure` does for an evaluator's request."""

    def solve(measurement: Measurement) -> Eigenpairs:
        wanted = evaluator.request
        generator = measurement.generator("eigenpairs")
        hessian = HessianOperator(measurement.surface)
        return eigenpairs(hessian, wanted.top, wanted.bottom, tolerance=wanted.tolerance, generator=generator)

    return solve


def measuring(
    evaluator: Evaluator,
    scratch: Path,
    net: nn.Module | None = None,
    *,
    data: LabelledData | None = None,
    phase: MeasuredPhase = "end",
    rows: Sequence[Row] = (),
    trajectory: Sequence[Path] = (),
    initial: dict[str, Tensor] | None = None,
    make_training: Callable[[int], Training] | None = None,
    dtype: torch.dtype = torch.float64,
    task: int = 0,
    batch_size: int = 16,
    tolerance: float | None = None,
    abort_if_estimated_hours_over: float | None = None,
) -> Measurement:
    """A measurement of `net` on a task of the small data, its evaluation batches uneven."""
    stream = TaskStream(data or small_data(), Stationary(0), num_tasks=9, batch_size=batch_size, seed=5)
    training = training_of(net if net is not None else mlp())
    return Measurement(
        task=stream[task],
        phase=phase,
        training=training,
        stream=stream,
        batches=list(stream.batches(stream[task], stream[task].train)),
        trajectory=trajectory,
        rows=rows,
        kept=Kept(checkpoint.cloned(training.net.state_dict()) if initial is None else initial),
        scratch=scratch,
        seed=5,
        settings=Settings(dtype, 64, tolerance, abort_if_estimated_hours_over=abort_if_estimated_hours_over),
        solve=solved(evaluator),
        make_training=make_training or (lambda seed: training_of(mlp())),
    ).for_evaluator("own")


def trained(measurement: Measurement, epochs: int = 3) -> list[dict[str, float]]:
    """Train the measurement's net on its task; the rows that the trainer would log."""
    rows, task, training = [], measurement.task, measurement.training
    for epoch in range(epochs):
        sums = EpochSums()
        for batch in measurement.stream.epoch(task, epoch):
            sums.add(task, training.learn(task, batch), batch.targets)
        rows.append({f"epoch_{name}": value for name, value in sums.means().items()})
    training.net.eval()
    return rows


def snapshots(measurement: Measurement, folder: Path, epochs: int = 5) -> list[Path]:
    """The net's state before each epoch and after the last, as files of a trajectory."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for epoch in range(epochs + 1):
        paths.append(folder / f"step_{epoch * 3:09d}.pt")
        checkpoint.save(paths[-1], measurement.training.net.state_dict())
        if epoch < epochs:
            trained(measurement, 1)
    return paths


def written(findings: Findings, folder: Path) -> dict[str, Path]:
    """The findings' files, written as a run writes them."""
    paths = {}
    for name, artifact in findings.artifacts.items():
        paths[name] = folder / name
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        artifact(paths[name])
    return paths
