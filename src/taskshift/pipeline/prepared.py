"""A net that stands where its training ends, and its analysis, evaluator by evaluator, in one folder."""

from __future__ import annotations

import functools
import logging
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loss_landscape import Directions
from taskshift import checkpoint, trajectory
from taskshift.analysis import Analysis
from taskshift.config.build import build_parts
from taskshift.evaluation import eval_mode
from taskshift.evaluators.axes import hessian_axes
from taskshift.faults import Fault
from taskshift.intact import read_json
from taskshift.job import Job
from taskshift.pipeline.elsewhere import Elsewhere
from taskshift.pipeline.outdir import taken
from taskshift.pipeline.plan import Plan
from taskshift.run_folder import RunFolder
from taskshift.shifts.task import Task
from taskshift.trainer import train

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A net, trained for a while or brought along, and where everything about it is written."""

    plan: Plan
    outdir: Path
    job: Job
    task: Task
    elsewhere: Elsewhere | None

    @property
    def identity(self) -> dict[str, Any]:
        """What `outdir` belongs to."""
        if self.elsewhere is None:
            return dict(self.plan.config)
        return {**self.plan.config, **self.elsewhere.config, "checkpoint": self.elsewhere.described()}

    @property
    def is_trained(self) -> bool:
        """Whether the net was trained, here or elsewhere."""
        return self.elsewhere is not None or self.plan.training.epochs_short > 0

    @property
    def provenance(self) -> str:
        """What was done to the net, in a few words."""
        epochs, seed = self.plan.training.epochs_short, self.job.config["seed"]
        if self.elsewhere is not None:
            return f"{self.elsewhere.net}, not trained any further"
        return f"trained for {epochs} epochs from seed {seed}" if epochs else f"untrained: as drawn from seed {seed}"

    def analyse(self, names: Sequence[str]) -> dict[str, float]:
        """Run what is missing of these evaluators, each into its folder; return their numbers under their full names."""
        with taken(self.outdir, self.identity), self.job.opened():
            analysis = self._analysis(names)
            if self.plan.use_second_run and "mode_connectivity" in analysis.missing():
                analysis = replace(analysis, second_run=self._second_run())
            if any(evaluator.request for evaluator in analysis.missing().values()):
                self._solve_for_all()
            found = analysis.run(functools.partial(_named, analysis))
            steps = (self.task.index + 1) * self.plan.training.epochs_short
            self.job.log(max(0, steps - 1), self.task, self._analysis(self.findings()).run())
        return found

    def numbers(self, *names: str) -> dict[str, float]:
        """What these evaluators find, under their full names; those that have not run yet do so first."""
        found = self.analyse(names)
        return {name: value for name, value in found.items() if name.startswith(tuple(f"{one}/" for one in names))}

    def picture(self, evaluator: str, name: str) -> Path:
        """A picture of an evaluator, which runs first where it has not yet; raises Fault where there is no such picture."""
        self.analyse([evaluator])
        path = self.outdir / evaluator / name
        if not path.exists():
            reasons = [file.read_text(encoding="utf-8").strip() for file in path.parent.glob("LEFT_OUT.txt")]
            raise Fault(f"there is no {path}: {reasons[0] if reasons else 'lla.logging.save_plots=true draws it'}")
        return path

    def findings(self) -> dict[str, dict[str, float]]:
        """Evaluator → its numbers, of all that have ended."""
        paths = {name: self.outdir / name / "findings.json" for name in self.job.parts.evaluators}
        return {name: read_json(path) for name, path in paths.items() if path.exists()}

    def seconds(self) -> dict[str, float]:
        """What each block took, over all attempts: training, the eigenpairs, each evaluator."""
        found = {} if self.elsewhere is not None else {"fine-tune": _trained_seconds(self.job.folder)}
        second = RunFolder(self.outdir / "second_run", self.job.folder.arch)
        if second.latest.exists():
            found["second run"] = _trained_seconds(second)
        if self._eigenpairs_file.exists():
            found["eigenpairs"] = checkpoint.load(self._eigenpairs_file)["seconds"]
        return found | {name: numbers["seconds"] for name, numbers in self.findings().items()}

    def hessian_axes(self) -> Directions:
        """The two axes of the Hessian's plane, as `lla.planes` wants them."""
        planes = self.job.config["lla"]["planes"]
        with taken(self.outdir, self.identity), self.job.opened(), eval_mode(self.job.parts.training.net):
            measurement = self._analysis(self.job.parts.evaluators).measurement
            return hessian_axes(measurement, planes["hessian_axes"], planes["hessian_normalization"])

    def _solve_for_all(self) -> None:
        """Solve for the largest request of all evaluators, so that the axes do not depend on which of them ran first."""
        self._say("eigenpairs")
        with eval_mode(self.job.parts.training.net):
            _ = self._analysis(self.job.parts.evaluators).measurement.requested_eigenpairs

    def _analysis(self, names: Iterable[str]) -> Analysis:
        parts, index = self.job.parts, self.task.index
        return Analysis(
            replace(parts, evaluators={name: parts.evaluators[name] for name in names}),
            self.task,
            "end",
            self.outdir,
            eigenpairs_file=self._eigenpairs_file,
            initial=self.job.folder.initial,
            trajectory=trajectory.points(self.job.folder, index),
            rows=tuple(self.job.task_rows),
            earlier={} if self.elsewhere is None else self.elsewhere.earlier,
            optimizer_known=self.elsewhere is None,
            tick=self._say,
        )

    def _say(self, name: str) -> None:
        if name != "eigenpairs" or not self._eigenpairs_file.exists():
            log.info("%s", name)
        self.job.tick(self.task, name)

    @property
    def _eigenpairs_file(self) -> Path:
        return self.job.folder.eigenpairs(self.task.index, "end")

    def _second_run(self) -> Path:
        """A net trained alike from another seed, without snapshots of its way."""
        training, lla = self.plan.training, self.job.config["lla"] | {"training": {"max_checkpoints": 0}}
        own = {"seed": training.second_run_seed, "epochs": training.epochs_short, "run_name": "second_run", "recorder": {}}
        job = make_job(self.job.config | own | {"lla": lla}, self.outdir)
        with job.opened():
            if job.is_at("start"):
                log.info("second run, from seed %d", training.second_run_seed)
                job.move(task=self.task.index, phase="train")
                job.save()  # a checkpoint comes before the first row
            train(job, self.task)  # this very task: another seed's may be another one
        return job.folder.task_checkpoint(self.task.index)


def prepare(plan: Plan, outdir: Path, elsewhere: Elsewhere | None = None) -> Prepared:
    """A net that stands where its training ends: trained in `<outdir>/run` from where that was cut off, or brought along.

    Raises Fault for what a user can mend; an outdir of another configuration is left as it is.
    """
    config = plan.as_run()
    if elsewhere is not None:
        config |= elsewhere.config_for(config) | {"epochs": 0, "num_tasks": elsewhere.task + 1}
    job = make_job(config, outdir)
    prepared = Prepared(plan, outdir, job, job.parts.stream[config["num_tasks"] - 1], elsewhere)
    if elsewhere is not None:
        elsewhere.load_into(job)
    with taken(outdir, prepared.identity):
        log.info("writing to %s", outdir.resolve())
        log.info("to go on after an interruption: %s", job.resume_command)
        with job.opened():
            if elsewhere is not None:
                elsewhere.keep_path(job)
            if job.is_at("start"):
                job.move(phase="train")
                job.save()  # a checkpoint comes before the first row
            train(job, prepared.task)
    return prepared


def make_job(config: Mapping[str, Any], outdir: Path) -> Job:
    """The run in `<outdir>/<run_name>`; it may have 0 epochs, which train.py's may not."""
    parts = build_parts({**config, "epochs": max(1, config["epochs"])})
    parts = replace(parts, top=replace(parts.top, epochs=config["epochs"]))
    return Job(config, parts, RunFolder(outdir / config["run_name"], config["arch"]), shlex.join(["python", *sys.argv]))


def _trained_seconds(folder: RunFolder) -> float:
    return checkpoint.load(folder.latest)["task_seconds"]


def _named(analysis: Analysis, name: str, evaluate: Callable[[], None]) -> None:
    """Run one evaluator; what it raises goes on with its name."""
    with analysis.naming(name, f"what is finished is kept; to leave it out: lla.{name}.enable=false"):
        evaluate()
