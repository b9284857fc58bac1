"""One run: its objects, where it stands, and how it is saved."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from taskshift import checkpoint, trajectory
from taskshift.clock import Clock
from taskshift.config.build import Parts
from taskshift.divergence import divergence
from taskshift.evaluators.evaluator import MeasuredPhase
from taskshift.execute import Execution, begun, kept, settle
from taskshift.execution.shared import SharedPrograms
from taskshift.faults import Fault, told
from taskshift.identity import refuse_another_identity
from taskshift.intact import absent
from taskshift.origin import cpu_model, describe_run
from taskshift.progress import EpochSums, Phase, Progress
from taskshift.recorders.numeric_rows import scalar
from taskshift.recorders.recorder import Moment, Opening
from taskshift.run_folder import RunFolder, Written, disk_faults, line_of, read_rows
from taskshift.shifts.task import Task
from taskshift.stack import StackShared
from taskshift.threads import fitting_threads

log = logging.getLogger(__name__)

_LOGGING: ContextVar[RunFolder | None] = ContextVar("the run that is at work", default=None)


class Job:
    """A run in progress. `opened()` brings it to where it was cut off; `move` and `save` keep it there.

    In a `stack` it saves when the others do, and its rows and the nets of its tasks wait in memory until then.
    """

    def __init__(
        self, config: Mapping[str, Any], parts: Parts, folder: RunFolder, command: str, *, stack: StackShared | None = None
    ):
        self.config, self.parts, self.folder, self.resume_command = config, parts, folder, command
        self.stack = stack
        self.progress = Progress()
        self.sums = EpochSums()
        self.bin = EpochSums()  # of the steps since the last row within the task
        self.written = Written()  # of the record
        self.task_rows: list[dict[str, float]] = []  # the present task's epochs
        self.task_seconds = 0.0  # spent on the present task before `_since`
        self.failed: list[str] = []  # evaluators that failed and were marked, by their FAILED files
        self.last_eigenpairs: str | None = None  # where the next Lanczos starts from, below the folder
        self.first_net = 0  # the first task whose net is kept
        self._unwritten: list[bytes] = []  # rows
        self._unsaved: dict[int, Mapping[str, Any]] = {}  # task → the net at its end
        self._clock = Clock(parts.top.checkpoints.every_seconds) if stack is None else stack.saving.hands()
        self._rows_clock = None if stack is None else stack.writing.hands()
        self._since = Clock(float("inf"))

    # -- the life of a run ------------------------------------------------------------------------------------

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make and lock the folder, refuse another identity, load the last checkpoint, cut the record to it, open the mirrors."""
        with ExitStack() as stack:
            stack.enter_context(disk_faults(self.folder.path))
            stack.enter_context(self.folder.locked())
            stack.enter_context(_logged_to(self.folder))
            self._take_identity()
            stack.enter_context(self._attempt())
            rows = self._go_on() if self.folder.latest.exists() else self._begin()
            self._clear()
            self.tidy()
            self._since.restart()
            self._clock.restart()
            opening = Opening(
                self.folder.path, self.config, self.config["run_name"], rows, self.parts.top.num_tasks, self.parts.top.epochs
            )
            for recorder in self.parts.recorders.values():
                recorder.open(opening)
            ok = False
            try:
                yield
                ok = True
            finally:
                for recorder in self.parts.recorders.values():
                    recorder.close(ok and not self.failed)

    @contextmanager
    def _attempt(self) -> Iterator[None]:
        """Leave word of how this attempt ends: DONE, or FAILED and why; nothing where it is interrupted."""
        self.folder.begin_attempt()
        try:
            with disk_faults(self.folder.path):
                yield
        except Exception as error:
            with suppress(OSError):  # a full disk may be what it failed of
                self.folder.fail_attempt(told(error))
                self._write_rows()
            raise
        if self.failed:
            self.folder.fail_attempt("evaluators failed and were marked: " + ", ".join(self.failed))
        else:
            diverged = divergence(read_rows(self.folder.path), self.parts.top.epochs)
            self.folder.end_attempt(self.parts.top.num_tasks, diverged)

    def _take_identity(self) -> None:
        known = self.folder.known_run()
        about = about_now = describe_run(self.config, self.resume_command, self.parts.device)
        if known is None:
            threads = self.parts.top.num_threads or self._fitting_threads()
        else:
            refuse_another_identity(known["config"], self.config, self.folder.path)
            threads = self.parts.top.num_threads or known["num_threads"]
            about = known | {"config": about["config"], "command": about["command"]}
            warn_of_another_machine(known, self.parts.device, threads)
            warn_of_other_code(known, about_now)
        torch.set_num_threads(threads)
        self.execution = self._settle(known)
        block = self.parts.training.block if known is None else known.get("block", 1)
        how = {"num_threads": threads, "execution": self.execution._asdict(), "block": block}
        self.folder.write_run(about | how)
        self.folder.write_configs(self.config)
        self.folder.write_quantities(self.parts.quantities)

    def _settle(self, known: Mapping[str, Any] | None) -> Execution:
        """How the steps are carried out: as the run began, else as `execution` says."""
        top, stream = self.parts.top, self.parts.stream
        task = stream[0]
        num_steps, wanted = top.num_tasks * top.epochs * stream.num_batches(task), top.execution
        if known is not None:
            wanted = kept(wanted, known)
        shared = SharedPrograms() if self.stack is None else self.stack.programs
        block = None if known is None else known.get("block", 1)
        found = settle(self.parts.training, stream, task, wanted=wanted, num_steps=num_steps, shared=shared, block=block)
        if known is None:
            return found
        began = begun(known)
        if found.how != began.how:
            log.warning(
                "this run's steps began %s and are %s here (%s): its numbers may differ in the last bits",
                *(began.how, found.how, found.why),
            )
        return began

    def _fitting_threads(self) -> int:
        parts = self.parts
        task, largest = parts.stream[0], max(parts.top.batch_size, parts.lla.evaluation_data.eval_batch_size)
        return fitting_threads(parts.training.net, parts.stream.gather(task, task.train[:1]).inputs, largest)

    def _begin(self) -> list[dict[str, float]]:
        if self.folder.has_trained():
            raise absent(self.folder.latest, "put a copy of it back, or delete metrics.jsonl: the run then begins anew")
        checkpoint.save(self.folder.initial, self.parts.training.net.state_dict())
        return self.folder.cut_rows(Written())

    def _go_on(self) -> list[dict[str, float]]:
        if not self.folder.initial.exists():  # the learner still is as the seed drew it
            log.warning("%s is gone; it is drawn again from the seed", self.folder.initial)
            checkpoint.save(self.folder.initial, self.parts.training.net.state_dict())
        state = self._state_of_latest()
        self.progress = Progress(**state["progress"])
        self.sums, self.bin = EpochSums(**state["sums"]), EpochSums(**state["bin"])
        self.written, self.task_seconds = Written(state["num_rows"], state["rows_checksum"]), state["task_seconds"]
        self.failed, self.last_eigenpairs, self.first_net = state["failed"], state["last_eigenpairs"], state["first_net"]
        self.parts.training.load_state_dict(state["training"])
        self.parts.stream.load_state_dict(state["source"])
        for name, watcher in self.parts.watchers.items():
            watcher.load_state_dict(state["watchers"][name])
        checkpoint.set_random_state(state["random"], self.parts.device)
        rows = self.folder.cut_rows(self.written)
        self.task_rows = [row for row in rows if row["task_idx"] == self.progress.task and "epoch_loss" in row]
        return rows

    def _state_of_latest(self) -> dict[str, Any]:
        state = checkpoint.load(self.folder.latest, self.parts.device)
        wanted = {"progress", "sums", "num_rows", "rows_checksum", "training", "source", "random", "first_net", "bin", "watchers"}
        if lacking := sorted(wanted - state.keys()):
            raise Fault(
                f"{self.folder.latest} was saved by other code than this: it lacks {', '.join(lacking)}; go on with that code "
                "(run.json says which), or give another run_name"
            )
        return state

    def save(self) -> None:
        """Write all that is needed to go on from here."""
        self._write_rows()
        self.save_nets()
        state = {
            "progress": self.progress.to_dict(),
            "sums": self.sums.state_dict(),
            "bin": self.bin.state_dict(),
            "num_rows": self.written.num_rows,
            "rows_checksum": self.written.checksum,
            "task_seconds": self.seconds_on_task(),
            "failed": self.failed,
            "last_eigenpairs": self.last_eigenpairs,
            "training": self.parts.training.state_dict(),
            "source": self.parts.stream.state_dict(),
            "random": checkpoint.random_state(self.parts.device),
            "first_net": self.first_net,
            "watchers": {name: watcher.state_dict() for name, watcher in self.parts.watchers.items()},
        }
        checkpoint.save(self.folder.latest, state)
        self._clock.restart()

    def save_if_due(self) -> bool:
        """Save when `checkpoints.every_seconds` have passed since the last time; say whether it was."""
        if is_due := self._clock.due():
            self.save()
        return is_due

    def end_phase(self, *, measured: bool) -> bool:
        """Save where a phase ends; in a stack by the clock alone, unless something was `measured` or all tasks are over.

        The first time always: a record that holds an epoch and has no checkpoint has lost it. Says whether it was saved.
        """
        is_last = self.progress.task == self.parts.top.num_tasks
        if self.stack is None or measured or is_last or not self.folder.latest.exists():
            self.save()
            return True
        return self.save_if_due()

    def keep_net(self, task: Task) -> None:
        """Keep the net of a task's end: on the disk, in a stack when the run is saved."""
        state = {"net": self.parts.training.net.state_dict(), "task": task.index}
        if self.stack is None:
            checkpoint.save(self.folder.task_checkpoint(task.index), state)
        else:
            self._unsaved[task.index] = checkpoint.cloned(state)

    def save_nets(self) -> None:
        """Write the nets that wait for it, but for those that `checkpoints.keep` would take away at once."""
        for index, state in self._unsaved.items():
            if index >= self._first_kept():
                checkpoint.save(self.folder.task_checkpoint(index), state)
        self._unsaved.clear()

    def _clear(self) -> None:
        """Remove what attempts that were killed have left half-written."""
        for path in self.folder.half_written():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def tidy(self) -> None:
        """Remove what finished tasks alone needed, and nets beyond `checkpoints.keep`, whatever an interrupted attempt left."""
        trajectory.forget_before(self.folder, self.progress.task)
        for path in self.folder.eigenpairs_before(self.progress.task):
            if str(path.relative_to(self.folder.path)) != self.last_eigenpairs:
                path.unlink()
        kept_from = self._first_kept()
        for task in range(self.first_net, kept_from):
            self.folder.task_checkpoint(task).unlink(missing_ok=True)
        self.first_net = kept_from

    def _first_kept(self) -> int:
        """The first task whose net `checkpoints.keep` keeps; in a stack earlier ones may never have been written."""
        keep = self.parts.top.checkpoints.keep
        return self.first_net if keep is None else max(self.first_net, self.progress.task - keep)

    def earlier_nets(self, task: Task) -> dict[int, Path]:
        """Task → the net at its end, of the tasks before this one whose nets are kept."""
        return {index: self.folder.task_checkpoint(index) for index in range(self._first_kept(), task.index)}

    def snapshots(self, task: Task) -> Sequence[Path]:
        """The net's kept states over the task's steps; raises Fault where one was kept and is gone."""
        kept = [trajectory.place(self.folder, task.index, step) for step in sorted(self.trajectory_steps(task))]
        for path in kept:
            if not path.exists():
                raise absent(path)
        return kept

    # -- where it stands --------------------------------------------------------------------------------------

    def remaining_tasks(self) -> Iterator[Task]:
        """The task that is under way and those after it."""
        for index in range(self.progress.task, self.parts.top.num_tasks):
            yield self.parts.stream[index]

    def is_at(self, phase: Phase) -> bool:
        return self.progress.phase == phase

    def move(self, **where: Any) -> None:
        """Go to another task, phase, epoch or batch; what is not named stays."""
        self.progress = replace(self.progress, **where)

    def next_task(self) -> None:
        """Leave the present task for good."""
        self.progress = Progress(task=self.progress.task + 1)
        self.task_rows, self.task_seconds = [], 0.0
        self._since.restart()

    def seconds_on_task(self) -> float:
        """Time spent on the present task, over all attempts."""
        return self.task_seconds + self._since.elapsed()

    def analyses(self, task: Task, phase: MeasuredPhase) -> bool:
        """Whether evaluators run at this phase of this task."""
        lla = self.parts.lla
        return bool(self.parts.evaluators) and phase in lla.at and task.index % lla.every == 0

    def trajectory_steps(self, task: Task) -> frozenset[int]:
        """The step counts of the task at which the net's state is kept for its end's analysis."""
        if not self.analyses(task, "end"):
            return frozenset()
        num_steps = self.parts.top.epochs * self.parts.stream.num_batches(task)
        return trajectory.steps(num_steps, self.parts.lla.training.max_checkpoints)

    def tick(self, task: Task, evaluator: str | None = None) -> None:
        """Tell the displays where the run is."""
        at = self.progress
        moment = Moment(task.index, at.phase, at.epoch, at.batch, self.parts.stream.num_batches(task), evaluator)
        for recorder in self.parts.recorders.values():
            recorder.tick(moment)

    # -- the record -------------------------------------------------------------------------------------------

    def log(self, step: int, task: Task, metrics: Mapping[str, float]) -> None:
        """Add a row to the record, then to its mirrors."""
        training = self.parts.training
        place = {"global_epoch": step, "task_idx": task.index, "global_step": training.num_steps, "samples": training.num_samples}
        row = place | {name: scalar(name, value) for name, value in metrics.items()}
        self.written = self.written.after(row)
        self._write(row)
        if "epoch_loss" in row:
            self.task_rows.append(row)
        for recorder in self.parts.recorders.values():
            recorder.record(row)

    def _write(self, row: Mapping[str, float]) -> None:
        if self._rows_clock is None:
            self.folder.append_row(row)
            return
        self._unwritten.append(line_of(row))
        if self._rows_clock.due():
            self._write_rows()

    def _write_rows(self) -> None:
        """Add the rows that wait for it to the record."""
        if self._unwritten:
            self.folder.append_lines(self._unwritten)
            self._unwritten = []
        if self._rows_clock is not None:
            self._rows_clock.restart()


@contextmanager
def _logged_to(folder: RunFolder) -> Iterator[None]:
    """Copy this package's log to `train.log` while the run is open, but for what other runs of its stack say."""
    handler = logging.FileHandler(folder.path / "train.log", delay=True, encoding="utf-8")
    handler.addFilter(lambda record: _LOGGING.get() in (None, folder))
    at_work = _LOGGING.set(folder)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("taskshift")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()
        _LOGGING.reset(at_work)


def warn_of_other_code(known: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Say which packages, and whether our own code, are others than those that a run began with."""
    before, after = known["versions"] | {"source": known["source_hash"]}, now["versions"] | {"source": now["source_hash"]}
    said = ", ".join(f"{name} {before.get(name)} → {version}" for name, version in after.items() if before.get(name) != version)
    if said:
        log.warning("this run began with other code (%s): what comes now may differ for that reason", said)


def warn_of_another_machine(
    known: Mapping[str, Any], device: torch.device | str, threads: int, processor: str | None = None
) -> None:
    """Say what differs from the machine on which a run began, where anything does; `processor` is this one unless given."""
    changes = [
        (name, before, now)
        for name, before, now in (
            ("processor", known["cpu"], processor or cpu_model()),
            ("device", known["device"], str(device)),
            ("num_threads", known["num_threads"], threads),
        )
        if before != now
    ]
    if changes:
        said = ", ".join(f"{name} {before} → {now}" for name, before, now in changes)
        log.warning("this run began elsewhere (%s): its numbers may differ in the last bits from an uninterrupted run's", said)
