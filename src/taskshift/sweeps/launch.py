"""A sweep carried out: what is done is skipped, what is at work is left alone, what was cut off goes on."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from taskshift.faults import Fault
from taskshift.origin import git_state, source_hash
from taskshift.plugin_code import plugin_files
from taskshift.run_folder import RunFolder, disk_faults, run_folder_of, sweep_path
from taskshift.script import Script
from taskshift.sweeps import slurm
from taskshift.sweeps.plan import Plan, PlannedRun, refuse_another_sweep
from taskshift.sweeps.stacks import Stack, StackSize, stacked
from taskshift.sweeps.states import CUT_OFF, FINISHED, OPEN, RunState, states
from taskshift.sweeps.sweep_folder import SweepFolder
from taskshift.sweeps.worker import Member, Worker, attempt, together

log = logging.getLogger("taskshift.sweeps")


class Carrier(Protocol):
    """Carries runs out somewhere; when it returns they are over, or queued where nobody need wait."""

    cluster: str | None  # as sweep.json names it

    def fitting(self, number: int, block: int) -> int:
        """How many of so many runs it had better carry out together, where a program steps `block` of them at a time."""

    def carry_out(self, sweep: Sweep, stacks: Sequence[Stack]) -> None:
        """Carry out these runs of the sweep, those of a stack together; there may be none. A run that fails stops no other."""


@dataclass(frozen=True)
class Sweep:
    """A plan in its folder, whose lock this process holds."""

    plan: Plan
    folder: SweepFolder
    script: Script
    max_requeues: int
    snapshot: bool

    def handed_over(self, stack: Stack) -> Worker:
        """What another process is to carry the stack out with; what earlier attempts said of their ends is taken away."""
        for run in stack:
            run_folder_of(run.config).begin_attempt()
        return Worker(self.script, members_of(stack), tuple(sys.argv), os.getcwd(), self.max_requeues)

    def code(self) -> Path:
        """Where other processes import the packages from: here, or with `snapshot` from a copy, made when first asked for."""
        here = Path(__file__).parents[2]
        if not self.snapshot:
            return here
        if not self.folder.code.exists():
            for package in ("taskshift", "loss_landscape", "hydra_plugins"):
                unwanted = shutil.ignore_patterns("__pycache__")
                shutil.copytree(here / package, self.folder.code / package, ignore=unwanted)
            for place, path in plugin_files(plugins_of(self.plan)).items():
                (self.folder.code / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, self.folder.code / place)
        return self.folder.code

    def queueing(self, stacks: Sequence[Stack]) -> None:
        """Write into sweep.json that jobs for these stacks are being queued, in this order: see `_note_lost_jobs`."""
        self.folder.write({**self.folder.read(), "queueing": [[run.key for run in stack] for stack in stacks]})

    def note(self, jobs: Mapping[str, str], cluster: str | None) -> None:
        """Write into sweep.json which job carries out which run."""
        about, now = self.folder.read(), datetime.now().astimezone().isoformat(timespec="seconds")
        about.pop("queueing", None)
        for key, job in jobs.items():
            about["runs"][key] |= {"job": job, "cluster": cluster, "submitted": now}
        self.folder.write(about)


def launch(
    plan: Plan,
    script: Script,
    *,
    carrier: Carrier,
    stack: StackSize,
    retry_failed: bool,
    max_requeues: int,
    detach: bool,
    snapshot: bool,
) -> dict[str, RunState]:
    """Carry out what is missing of a sweep; return how each of the plan's runs stands.

    Raises Fault for a folder of another sweep or one that another launcher holds, and at the end for runs that are not done,
    unless `detach`.
    """
    folder = SweepFolder(sweep_path(plan.runs[0].config))
    sweep = Sweep(plan, folder, script, max_requeues, snapshot)
    with disk_faults(folder.path), folder.locked():
        _begin(sweep)
        _note_lost_jobs(sweep)
        missing = _missing(sweep, retry_failed)
        wanted = stacked(missing, _possible(stack, script), carrier.fitting)
        together = f", in {len(wanted)} stack{'s' if len(wanted) > 1 else ''}" if len(wanted) < len(missing) else ""
        log.info("%s: %d runs, %d to carry out%s", folder.path, len(plan.runs), len(missing), together)
        carrier.carry_out(sweep, wanted)
    found = {key: state for key, state in states(folder).items() if key in {run.key for run in plan.runs}}
    if not detach:
        _refuse_unfinished(plan, found)
    return found


def label_of(stack: Stack) -> str:
    """The runs of a stack in a few words."""
    return stack[0].label if len(stack) == 1 else f"{stack[0].label} and {len(stack) - 1} more"


def members_of(stack: Stack) -> tuple[Member, ...]:
    return tuple(Member(run.label, run.config, run.overrides) for run in stack)


def run_here(sweep: Sweep, stack: Stack) -> None:
    """A run, or those of a stack, in this process; what it raises is told, and left to the run's FAILED file."""
    try:
        if len(stack) > 1:
            together(sweep.script, members_of(stack))
        else:
            attempt(sweep.script.job, stack[0].config, stack[0].overrides)
    except Fault as fault:
        log.error("%s", fault)
    except Exception:  # the other runs of the sweep must still go on; the command as a whole fails
        log.error("%s", traceback.format_exc())


class Here:
    """One stack after the other in this process."""

    cluster = None

    def fitting(self, number: int, block: int) -> int:
        return number

    def carry_out(self, sweep: Sweep, stacks: Sequence[Stack]) -> None:
        what = "run" if all(len(stack) == 1 for stack in stacks) else "stack"
        for number, stack in enumerate(stacks, start=1):
            log.info("%s %d of %d: %s", what, number, len(stacks), label_of(stack))
            run_here(sweep, stack)


def _possible(size: StackSize, script: Script) -> StackSize:
    """The size of stacks as far as the script can carry out several runs; raises Fault where one is asked for and it can't."""
    if script.together is not None:
        return size
    if size not in ("auto", False):
        raise Fault(f"hydra.launcher.stack={size}: this script carries out one run at a time; leave hydra.launcher.stack out")
    return False


def plugins_of(plan: Plan) -> tuple[str, ...]:
    """Every plugin that one of the plan's runs names."""
    return tuple(sorted({name for run in plan.runs for name in run.config["plugins"]}))


def _begin(sweep: Sweep) -> None:
    """Write sweep.json with the plan's runs beside those that are there."""
    plan, folder = sweep.plan, sweep.folder
    known = folder.read() if folder.file.exists() else None
    plugins = plugins_of(plan)
    if known is not None:
        refuse_another_sweep(plan, known, folder)
    about = known or {
        "name": plan.name,
        "fixed": list(plan.fixed),
        "swept": list(plan.swept),
        "command": shlex.join(["python", *sys.argv]),
        "source": {"hash": source_hash(plugins), "plugins": plugins, "git": git_state(Path(__file__).parent)},
        "runs": {},
    }
    new = {"job": None, "cluster": None, "submitted": None}
    for run in plan.runs:
        about["runs"].setdefault(run.key, {"overrides": dict(run.swept), "label": run.label, **new})
    folder.write(about)


def _note_lost_jobs(sweep: Sweep) -> None:
    """Note the jobs of a launcher that was ended when it had queued them and did not know their numbers yet."""
    about = sweep.folder.read()
    stacks: list[list[str]] | None = about.get("queueing")
    if stacks is None:
        return
    arrays = slurm.arrays_from(sweep.folder.submitted)
    if arrays is None:
        raise Fault(
            f"a launcher was ended while it queued jobs of {sweep.folder.path}, and SLURM does not answer whether they are "
            "there; give the same command again when squeue answers"
        )
    lost = sorted(arrays - {entry["job"].partition("_")[0] for entry in about["runs"].values() if entry["job"]})
    jobs = [f"{lost[0]}_{number}" if len(stacks) > 1 else lost[0] for number in range(len(stacks))] if lost else []
    able = [job for job in jobs if slurm.call_of(sweep.folder.submitted, job).exists()]
    slurm.cancel([job for job in jobs if job not in able])  # they know no run, and could only fail
    known = zip(jobs, stacks, strict=True) if lost else ()
    sweep.note({key: job for job, keys in known if job in able for key in keys}, "slurm")


def _missing(sweep: Sweep, retry_failed: bool) -> list[PlannedRun]:
    """The runs to carry out now."""
    known = states(sweep.folder, launching=False)
    return [run for run in sweep.plan.runs if _is_missing(sweep.folder, run, known[run.key].state, retry_failed)]


def _is_missing(folder: SweepFolder, run: PlannedRun, state: str, retry_failed: bool) -> bool:
    if state in FINISHED:
        return RunFolder(folder.run_folder(run.key), arch="").tasks_done() < run.config["num_tasks"]
    return state not in OPEN and (state != "failed" or retry_failed)


def _refuse_unfinished(plan: Plan, found: Mapping[str, RunState]) -> None:
    """Name the runs that are not done and not some scheduler's business."""
    labels = {run.key: run.label for run in plan.runs}
    unfinished = [(labels[key], state) for key, state in found.items() if state.state not in (*FINISHED, *OPEN)]
    if unfinished:
        raise Fault(
            f"{len(unfinished)} of {len(plan.runs)} runs are not done{_advice(state for _, state in unfinished)}",
            *(f"{label}: {state.state}{f', {state.why}' if state.why else ''}" for label, state in unfinished),
        )


def _advice(found: Iterable[RunState]) -> str:
    names = {state.state for state in found}
    goes_on = ["the same command goes on with those that were cut off"] if names & set(CUT_OFF) else []
    again = ["hydra.launcher.retry_failed=true tries the failed ones again"] if "failed" in names else []
    return "; " + ", ".join([*goes_on, *again]) if goes_on or again else ""
