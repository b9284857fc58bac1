"""What SLURM says of jobs, with accounting and without."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

SECONDS_TO_ANSWER = 30
ENDS = {
    "TIMEOUT": "timed out",
    "DEADLINE": "timed out",
    "OUT_OF_MEMORY": "out of memory",
    "PREEMPTED": "preempted",
    "CANCELLED": "killed",
    "NODE_FAIL": "preempted",
    "BOOT_FAIL": "preempted",
    "FAILED": "killed",
}
"""SLURM's word for a job's end → ours. A job that lost its node was preempted too: through nobody's fault, and to go on.

A run that fails by itself leaves a FAILED file; a job that FAILED without was killed.
"""

LAST_WORDS = (
    (re.compile(r"DUE TO TIME LIMIT"), "timed out"),
    (re.compile(r"DUE TO PREEMPTION|DUE TO NODE FAILURE"), "preempted"),
    (re.compile(r"oom[-_ ]kill|Out Of Memory|out-of-memory", re.IGNORECASE), "out of memory"),
    (re.compile(r"CANCELLED AT"), "killed"),
)
"""What slurmstepd writes into a job's stderr → how it ended."""


def queued() -> dict[str, tuple[str, str]] | None:
    """Job id (42_3 in an array) → its state and its reason, of this user's jobs that have not ended.

    None where SLURM is there and does not answer: nothing may be concluded from that.
    """
    if shutil.which("squeue") is None:
        return {}
    answer = _asked("squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i|%T|%r")
    if answer is None:
        return None
    lines = [line.split("|", 2) for line in answer.splitlines() if line.count("|") >= 2]
    return {job: (state, reason) for job, state, reason in lines}


def arrays_from(folder: Path) -> set[str] | None:
    """The ids of this user's jobs and job arrays that have not ended and whose script lies in `folder`; None as in `queued`."""
    if shutil.which("squeue") is None:
        return set()
    answer = _asked("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%F|%o")
    if answer is None:
        return None
    found = [line.split("|", 1) for line in answer.splitlines() if "|" in line]
    return {array for array, script in found if Path(script).resolve().parent == folder.resolve()}


def cancel(jobs: Sequence[str]) -> None:
    """End these jobs."""
    if jobs:
        _asked("scancel", *jobs)


def ends(jobs: Mapping[str, Path]) -> dict[str, tuple[str, str]]:
    """Job → how it ended, in our words, and where that is known from; `jobs` that are no longer queued → their stderr."""
    recorded = _by_accounting(list(jobs)) if jobs else {}
    return {job: _end(job, stderr, recorded) for job, stderr in jobs.items()}


def call_of(folder: Path, job: str) -> Path:
    """Where submitit leaves what a job is to carry out, below its folder, once sbatch has told it the job's number."""
    return folder / job / f"{job}_submitted.pkl"


def stderr_of(folder: Path, job: str) -> Path:
    """Where a job's attempts write their errors, one after the other, below submitit's folder."""
    return folder / job / f"{job}_0_log.err"


def _end(job: str, stderr: Path, recorded: Mapping[str, str]) -> tuple[str, str]:
    for word in _words(job, recorded):
        state = next((ours for theirs, ours in ENDS.items() if word.startswith(theirs)), None)
        if state is not None:
            last = f": {_lines(stderr)[-1]}" if word.startswith("FAILED") and _lines(stderr) else ""
            return state, f"SLURM says {word} of job {job}{last}"
    for line in reversed(_lines(stderr)):
        for pattern, state in LAST_WORDS:
            if pattern.search(line):
                return state, f"job {job} wrote so into {stderr}"
    return "killed", f"job {job} ended without a word"


def _words(job: str, recorded: Mapping[str, str]) -> Iterator[str]:
    """What SLURM says of a job's end, accounting first, which may lag behind and then says that it runs."""
    if job in recorded:
        yield recorded[job]
    answer = _asked("scontrol", "--oneliner", "show", "job", job)  # the controller remembers a job for some minutes
    found = re.search(r"JobState=(\S+) Reason=(\S+)", answer or "")
    if found is not None:
        yield " ".join(found.groups())


def _by_accounting(jobs: Sequence[str]) -> dict[str, str]:
    """Job → its state and exit code, of those that accounting knows; none where there is no accounting."""
    listed = f"--jobs={','.join(jobs)}"
    answer = _asked("sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State,ExitCode", listed)
    lines = [line.split("|") for line in (answer or "").splitlines()]
    return {job: f"{state} {code}" for job, state, code in lines}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


def _asked(*command: str) -> str | None:
    """What a command of SLURM's answers, or None where it can't."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
