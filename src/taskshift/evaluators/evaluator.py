"""What an evaluator is, what it is given, and what it gives back."""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from loss_landscape import Eigenpairs, LossSurface, Shard
from taskshift import randomness
from taskshift.evaluation import of_examples, standard_errors
from taskshift.quantities import Quantity
from taskshift.shifts.source import Source
from taskshift.shifts.task import Batch, Task
from taskshift.training import Training

MeasuredPhase = Literal["start", "end"]
Row = Mapping[str, float]
Artifact = Callable[[Path], None]
"""Writes one file at the path it is given."""


@dataclass(frozen=True)
class Request:
    """How many eigenpairs of the Hessian an evaluator will ask for, at either end of the spectrum, and how exact.

    `tolerance` bounds a pair's residual, relative to the largest |eigenvalue|.
    """

    top: int = 0
    bottom: int = 0
    tolerance: float = 1e-3

    def __or__(self, other: Request) -> Request:
        return Request(max(self.top, other.top), max(self.bottom, other.bottom), min(self.tolerance, other.tolerance))

    def __bool__(self) -> bool:
        return self.top + self.bottom > 0


@dataclass(frozen=True)
class Findings:
    """Numbers for every recorder, files for the run folder only."""

    scalars: Mapping[str, float]
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)  # path below the evaluator's folder → its writer


class Evaluator(ABC):
    """Measures one thing about a training on a task. Gets eval mode, random state, timing and clean-up from `measure`."""

    request: Request = Request()

    quantities: Sequence[Quantity] = ()
    """What it tells, without its own name: what has a meaning, a unit, a panel or a column in the table says so here."""

    @abstractmethod
    def __call__(self, measurement: Measurement) -> Findings:
        """Measure; names of scalars come without the evaluator's own name, which is put before them."""

    def compute_share(self, measurement: Measurement, shard: Shard) -> None:  # noqa: B027 (most have nothing to split)
        """Compute a part of the work and keep it in `measurement.scratch`, where a call finds it; by default nothing is split."""


@dataclass(frozen=True)
class Settings:
    """What the head of `lla` says to every evaluator."""

    dtype: torch.dtype = torch.float64  # of the losses
    memory_budget_mb: int = 1024
    tolerance: float | None = None  # of planes' losses, relative: cells between others are predicted where it is kept
    compile: bool | Literal["auto"] = "auto"  # how planes are evaluated
    abort_if_estimated_hours_over: float | None = None  # hours for one plane


@dataclass(frozen=True)
class Kept:
    """State dicts of the run's measured net at other times."""

    initial: Mapping[str, torch.Tensor]  # before the run's first step
    earlier: Mapping[int, Path] = field(default_factory=dict)  # at earlier tasks' ends, by task
    second_run: Path | None = None  # of a net trained like this one from another seed, where there is one


@dataclass(frozen=True)
class Measurement:
    """All that an evaluator is given; nothing in it can change the run."""

    task: Task
    phase: MeasuredPhase
    training: Training
    stream: Source
    batches: Sequence[Batch]  # evaluation data, the same for every evaluator of a task
    trajectory: Sequence[Path]  # state dicts of the net over the task's steps, first to last; empty at a task's start
    rows: Sequence[Row]  # the task's epochs so far
    kept: Kept
    scratch: Path  # this evaluator's partial results, kept until it ends
    seed: int
    settings: Settings
    solve: Callable[[Measurement], Eigenpairs]  # the eigenpairs for the largest request, solved once and kept on disk
    make_training: Callable[[int], Training]  # a new training as the config describes it, from this seed
    optimizer_known: bool = True  # whether the training's optimizer is as it was then, not as new

    @property
    def dtype(self) -> torch.dtype:
        """Of the losses."""
        return self.settings.dtype

    @cached_property
    def surface(self) -> LossSurface:
        """The task's loss around the net's parameters, over the evaluation batches."""
        return LossSurface(self.training.net, self.task.loss, self.batches, dtype=self.dtype)

    @cached_property
    def requested_eigenpairs(self) -> Eigenpairs:
        """The eigenpairs for the largest request of all evaluators."""
        return self.solve(self)

    @cached_property
    def loss_error(self) -> float | None:
        """The standard error of the surface's loss over its examples; None where the loss gives no value an example."""
        values = of_examples(self.training.net, self.task, self.batches)
        return standard_errors(values).get("loss_standard_error")

    def eigenpairs(self, top: int = 0, bottom: int = 0) -> Eigenpairs:
        """The `top` largest and `bottom` smallest eigenpairs of the Hessian, within what `request` announced."""
        return self.requested_eigenpairs.select(top, bottom)

    def generator(self, name: str) -> torch.Generator:
        """A generator on the CPU from (seed, task, phase, name), never from the order of visits."""
        return randomness.generator(self.seed, "evaluator", self.task.index, self.phase, name)

    def for_evaluator(self, name: str) -> Measurement:
        """The same measurement, sharing what it has cached, with a scratch folder for one evaluator."""
        own = copy.copy(self)
        object.__setattr__(own, "scratch", self.scratch / name)
        return own

    def fresh_training(self) -> Training:
        """A training that has seen no task, its initial parameters drawn for this task."""
        return self.make_training(randomness.seed_from(self.seed, "fresh", self.task.index))


def json_file(content: Any) -> Artifact:
    """An artifact that writes `content` as indented JSON; NaN and infinities stay readable by Python."""
    return lambda path: path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def array_file(array: np.ndarray) -> Artifact:
    """An artifact that writes a NumPy array as .npy."""
    return lambda path: np.save(path, array)


def arrays_file(**arrays: np.ndarray) -> Artifact:
    """An artifact that writes named NumPy arrays as .npz."""
    return lambda path: np.savez(path, **arrays)
