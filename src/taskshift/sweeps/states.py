"""How the runs of a sweep stand: from what they left in their folders, and from what the scheduler says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from taskshift.divergence import ADVICE
from taskshift.run_folder import RunFolder, is_held
from taskshift.sweeps import slurm
from taskshift.sweeps.sweep_folder import Entry, SweepFolder

OPEN = ("running", "pending")
"""A run in one of these is some process's or scheduler's business: nobody else touches it."""

WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED")
"""SLURM's words for a job that is to run later."""

FINISHED = ("done", "diverged")
"""A run in one of these has come to its end, and is not run again unless it is given more tasks."""

CUT_OFF = ("out of memory", "timed out", "preempted", "killed", "interrupted")
"""A run in one of these goes on from its last checkpoint when it is started again."""


@dataclass(frozen=True)
class RunState:
    """`state` is failed, new, one of `FINISHED`, of `OPEN` or of `CUT_OFF`; `why` says what is known of it, if anything."""

    state: str
    why: str = ""


def states(sweep: SweepFolder, launching: bool | None = None) -> dict[str, RunState]:
    """The state of every run, by its key; `launching`: whether a launcher is at work on them (None: find out by its lock)."""
    runs = sweep.runs()
    on_slurm = any(entry["cluster"] == "slurm" for entry in runs.values())
    queued = slurm.queued() if on_slurm else {}
    launching = is_held(sweep.path) if launching is None else launching
    known = {key: _known_here(sweep.run_folder(key), entry, queued, launching) for key, entry in runs.items()}
    over = [runs[key]["job"] for key, state in known.items() if state is None]
    ends = slurm.ends({job: slurm.stderr_of(sweep.submitted, job) for job in over})
    return {key: state or RunState(*ends[runs[key]["job"]]) for key, state in known.items()}


def state_of(folder: Path) -> RunState:
    """The state of one run by its folder alone."""
    run = RunFolder(folder, arch="")
    if is_held(folder):
        return RunState("running")
    if run.done.exists():
        why = run.diverged()
        return RunState("diverged", f"{why}; {ADVICE}") if why else RunState("done")
    if run.failed.exists():
        return RunState("failed", last_line(run.failed))
    if run.latest.exists() or run.metrics.exists() or (folder / "run.json").exists():
        return RunState("interrupted", "its process is gone; the same command goes on from the last checkpoint")
    return RunState("new")


def last_line(path: Path) -> str:
    """The last line of a text that says something."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _known_here(folder: Path, entry: Entry, queued: Mapping[str, tuple[str, str]] | None, launching: bool) -> RunState | None:
    """The state by the run's folder and by the queue (None: SLURM does not answer); None where only a job's end tells."""
    own, job = state_of(folder), entry["job"]
    on_slurm = entry["cluster"] == "slurm" and job is not None
    if own.state == "running":
        return own
    has_ended = own.state in (*FINISHED, "failed")
    if on_slurm and queued and job in queued:
        state, reason = queued[job]
        if state in WAITING:
            return RunState("pending", _reason(reason))
        return own if has_ended else RunState("running", _reason(reason))  # ended: others of its stack are still at work
    if has_ended:
        return own
    if on_slurm:
        return RunState("pending", f"SLURM does not answer; job {job} was queued") if queued is None else None
    return RunState("pending", "its launcher is at work") if launching else own


def _reason(reason: str) -> str:
    return "" if reason in ("", "None") else f"SLURM's reason: {reason}"
