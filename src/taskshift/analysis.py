"""Running evaluators on a net that stands on a task, so that they leave no trace and never run twice."""

from __future__ import annotations

import dataclasses
import functools
import logging
import operator
import pickle
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from loss_landscape import Eigenpairs, HessianOperator, Shard, eigenpairs
from loss_landscape.files import UnreadableFileError, sync_folder
from taskshift import checkpoint
from taskshift.clock import stopwatch
from taskshift.config.build import Parts
from taskshift.config.schema import LlaHead
from taskshift.evaluation import eval_mode
from taskshift.evaluators.evaluator import Evaluator, Findings, Kept, MeasuredPhase, Measurement, Row, Settings
from taskshift.faults import Fault
from taskshift.intact import Damaged, read_json, write_json
from taskshift.randomness import generator, random_state_kept, seed_from
from taskshift.recorders.numeric_rows import scalar
from taskshift.shifts.source import Source
from taskshift.shifts.task import Batch, Task
from taskshift.training import Training

log = logging.getLogger(__name__)

Guard = Callable[[str, Callable[[], None]], None]
"""(evaluator's name, what runs it): runs it, and decides what follows where it fails."""


@dataclass(frozen=True)
class Analysis:
    """The evaluators of `parts` on its training, at one phase of one task; each writes into a folder of its own below `folder`.

    What has its `findings.json` there is not run again, and what an evaluator had finished is taken up from `.scratch`.
    """

    parts: Parts
    task: Task
    phase: MeasuredPhase
    folder: Path
    eigenpairs_file: Path  # the eigenpairs for the largest request, solved once
    initial: Path  # the net's state before the run's first step
    start_vectors: Path | None = None  # eigenpairs of another phase, from whose vectors Lanczos starts
    trajectory: Sequence[Path] = ()  # see Measurement
    rows: Sequence[Row] = ()
    earlier: Mapping[int, Path] = field(default_factory=dict)
    second_run: Path | None = None
    optimizer_known: bool = True
    tick: Callable[[str], None] = lambda name: None  # told what is about to run

    def run(self, guard: Guard = lambda name, evaluate: evaluate()) -> dict[str, float]:
        """Run what is missing; return every evaluator's numbers under their full names."""
        if missing := self.missing():
            self.prepare()
            with eval_mode(self.parts.training.net):
                for name, evaluator in missing.items():
                    self.tick(name)
                    guard(name, functools.partial(_run_one, name, evaluator, self.measurement, self.folder))
        shutil.rmtree(self.folder / ".scratch", ignore_errors=True)  # also where an earlier attempt ended before this line
        return self._eigenpairs_cost() | self._found()

    def missing(self) -> dict[str, Evaluator]:
        """The evaluators that have not finished."""
        evaluators = self.parts.evaluators.items()
        return {name: evaluator for name, evaluator in evaluators if not has_findings(self.folder / name)}

    def prepare(self) -> None:
        """Solve the eigenpairs that missing evaluators ask for: now, so that their time is no evaluator's, and no shard's."""
        if any(evaluator.request for evaluator in self.missing().values()):
            self.tick("eigenpairs")
            with eval_mode(self.parts.training.net):
                _ = self.measurement.requested_eigenpairs

    def compute_share(self, shard: Shard) -> None:
        """Compute a shard's part of the missing evaluators' work into `.scratch`, where `run` finds it."""
        with eval_mode(self.parts.training.net):
            for name, evaluator in self.missing().items():
                own = self.measurement.for_evaluator(name)
                own.scratch.mkdir(parents=True, exist_ok=True)
                with _seeded(own, name), _nothing_changed(own, name):
                    evaluator.compute_share(own, shard)

    @cached_property
    def measurement(self) -> Measurement:
        """What the evaluators are given."""
        parts = self.parts
        return Measurement(
            task=self.task,
            phase=self.phase,
            training=parts.training,
            stream=parts.stream,
            batches=evaluation_batches(parts, self.task),
            trajectory=_intact(self.trajectory),
            rows=self.rows,
            kept=Kept(checkpoint.load(self.initial, parts.device), self.earlier, self.second_run),
            scratch=self.folder / ".scratch",
            seed=parts.top.seed,
            settings=settings_of(parts.lla),
            solve=self._solved,
            make_training=parts.make_training,
            optimizer_known=self.optimizer_known,
        )

    def at(self, name: str) -> str:
        """An evaluator of this analysis in words."""
        return f"the evaluator {name} at the {self.phase} of task {self.task.index}"

    @contextmanager
    def naming(self, name: str, advice: str) -> Iterator[None]:
        """Inside, whatever an evaluator raises goes on with the evaluator's name and the advice."""
        with told_where(f"in {self.at(name)}; {advice}"):
            yield

    def _found(self) -> dict[str, float]:
        """What the evaluators wrote; one that failed and was marked wrote nothing."""
        paths = {name: self.folder / name / "findings.json" for name in self.parts.evaluators}
        numbers = {name: read_json(path) for name, path in paths.items() if path.exists()}
        return {f"{name}/{key}": value for name, found in numbers.items() for key, value in found.items()}

    def _solved(self, measurement: Measurement) -> Eigenpairs:
        """The eigenpairs for the largest request: from disk where they are, else by Lanczos."""
        device = self.parts.device
        if self.eigenpairs_file.exists() and (kept := _kept_pairs(self.eigenpairs_file, device, "they are solved again")):
            return kept
        request = functools.reduce(operator.or_, (evaluator.request for evaluator in self.parts.evaluators.values()))
        with stopwatch(device) as watch:
            pairs = eigenpairs(
                HessianOperator(measurement.surface, memory_budget_mb=measurement.settings.memory_budget_mb),
                top=request.top,
                bottom=request.bottom,
                tolerance=request.tolerance,
                generator=measurement.generator("eigenpairs"),
                start=self._start(device),
            )
        state = {field.name: getattr(pairs, field.name) for field in dataclasses.fields(pairs)}
        checkpoint.save(self.eigenpairs_file, {"pairs": state, "seconds": watch.seconds})
        return pairs

    def _start(self, device: torch.device) -> torch.Tensor | None:
        """The vectors that Lanczos starts from: they save products, so that a run goes on without those it has lost."""
        cold = "Lanczos starts without it, so that the last digits of eigenvalues may differ from an undisturbed run's"
        pairs = None if self.start_vectors is None else _kept_pairs(self.start_vectors, device, cold)
        return None if pairs is None else pairs.vectors

    def _eigenpairs_cost(self) -> dict[str, float]:
        if not self.eigenpairs_file.exists():
            return {}
        if _kept_pairs(self.eigenpairs_file, self.parts.device, "they are solved again") is None:
            with eval_mode(self.parts.training.net):
                self._solved(self.measurement)
        kept = checkpoint.load(self.eigenpairs_file)
        return {"eigenpairs/seconds": kept["seconds"], "eigenpairs/products": kept["pairs"]["num_products"]}


@contextmanager
def told_where(where: str) -> Iterator[None]:
    """Inside, whatever is raised goes on with the words `where`."""
    try:
        yield
    except Fault as fault:  # what the user can mend is told in sentences, without a traceback
        raise Fault(*fault.sentences, where) from fault
    except Exception as error:
        error.add_note(where)
        raise


def settings_of(lla: LlaHead) -> Settings:
    hours = lla.runtime.abort_if_estimated_hours_over
    return Settings(getattr(torch, lla.dtype), lla.memory_budget_mb, lla.tolerance, lla.compile, hours)


def _intact(snapshots: Sequence[Path]) -> Sequence[Path]:
    """The snapshots themselves, each as it was written: the library that reads them looks at no checksum."""
    for path in snapshots:
        checkpoint.require_intact(path)
    return snapshots


def has_findings(folder: Path) -> bool:
    """Whether an evaluator has left its numbers in its folder; those that were damaged since are taken away."""
    file = folder / "findings.json"
    if not file.exists():
        return False
    try:
        read_json(file, "it is measured again")
    except Fault as fault:
        log.warning("%s", fault)
        file.unlink()
        return False
    return True


def _kept_pairs(path: Path, device: torch.device, instead: str) -> Eigenpairs | None:
    """The eigenpairs in a file; None, and a warning that says what happens `instead`, where it is gone or damaged."""
    try:
        return Eigenpairs(**checkpoint.load(path, device, instead)["pairs"])
    except Fault as fault:
        log.warning("%s", fault)
        path.unlink(missing_ok=True)
        return None


def evaluation_batches(parts: Parts, task: Task) -> list[Batch]:
    """The same batches for every evaluator of a task: a seeded subset of its training examples, never augmented."""
    options = parts.lla.evaluation_data
    order = torch.randperm(len(task.train), generator=generator(options.fixed_eval_seed, "evaluation data"))
    count = max(1, round(options.dataset_fraction_for_landscape * len(order)))
    if options.num_batches is not None:
        count = min(count, options.num_batches * options.eval_batch_size)
    chosen = task.train[order[:count].to(task.train.device)]
    return list(parts.stream.batches(task, chosen, options.eval_batch_size))


def _run_one(name: str, evaluator: Evaluator, measurement: Measurement, folder: Path) -> None:
    own = measurement.for_evaluator(name)
    own.scratch.mkdir(parents=True, exist_ok=True)
    with _nothing_changed(own, name), stopwatch(own.stream.device) as watch:
        findings = _evaluated(name, evaluator, own)
        own.training.net.zero_grad(set_to_none=True)
    _write(folder / name, findings, watch.seconds)
    shutil.rmtree(own.scratch)


UNREADABLE = (Damaged, UnreadableFileError, zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, EOFError)
"""What reading a file raises that a crash, or a bad disk, has left as it should not be."""


def _evaluated(name: str, evaluator: Evaluator, measurement: Measurement) -> Findings:
    """What an evaluator finds, from its beginning where what an interrupted attempt has left of it can't be read."""
    taken_up = any(measurement.scratch.iterdir())
    try:
        with _seeded(measurement, name):
            return evaluator(measurement)
    except UNREADABLE as error:
        if not taken_up:
            raise
        log.warning("%s can't be read (%s); what was in it is computed again", measurement.scratch, error)
    shutil.rmtree(measurement.scratch)
    measurement.scratch.mkdir()
    with _seeded(measurement, name):
        return evaluator(measurement)


def _write(folder: Path, findings: Findings, seconds: float) -> None:
    """Put an evaluator's files and numbers into its folder, all or none of them."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name, artifact in findings.artifacts.items():
        path = partial / name
        path.parent.mkdir(parents=True, exist_ok=True)
        artifact(path)
    numbers = {key: scalar(key, value) for key, value in findings.scalars.items()} | {"seconds": seconds}
    write_json(partial / "findings.json", numbers)
    shutil.rmtree(folder, ignore_errors=True)  # what an earlier, failed attempt left
    partial.rename(folder)
    sync_folder(folder.parent)


@contextmanager
def _seeded(measurement: Measurement, name: str) -> Iterator[None]:
    """Give the evaluator a random state of its own, and the run its own back."""
    device = measurement.stream.device
    with random_state_kept(device):
        torch.manual_seed(seed_from(measurement.seed, "evaluator", measurement.task.index, measurement.phase, name, "torch"))
        yield


def _nothing_changed(measurement: Measurement, name: str) -> AbstractContextManager[None]:
    instead = "it may change copies only, see fresh_training()"
    return unchanged(measurement.training, measurement.stream, who=f"the evaluator {name}", instead=instead)


@contextmanager
def unchanged(training: Training, source: Source, *, who: str, instead: str) -> Iterator[None]:
    """Compare both before and after; where one was changed, put it back, and raise RuntimeError that says `who` did it."""
    before, standing = checkpoint.cloned(training.state_dict()), checkpoint.cloned(source.state_dict())
    yield
    moved = checkpoint.first_difference(standing, source.state_dict())
    if moved is not None:
        source.load_state_dict(standing)
        raise RuntimeError(f"{who} changed the source's {moved}; it may roll out a copy only, see Source.apart()")
    training.hide()
    changed = checkpoint.first_difference(before, training.state_dict())
    if changed is not None:
        training.load_state_dict(before)
        raise RuntimeError(f"{who} changed the training's {changed}; {instead}")
