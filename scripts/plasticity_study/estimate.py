"""How long the study takes: two tasks of one stack of backprop, carried on to all tasks, runs and learners."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from plasticity_study.plan import Entry, Problem, Study
from plasticity_study.results import BASE
from taskshift.sweeps.records import read_sweeps

TRAIN = Path(__file__).resolve().parents[2] / "train.py"
NUM_TASKS = "num_tasks="


class Piece(NamedTuple):
    """What a short stack took, by the clock."""

    start: float  # seconds before its first task, compiling included
    run_task: float  # seconds that one run adds to a task


def told(study: Study, work: Sequence[tuple[Problem, Entry]], *, seeds: int | None, further: Sequence[str]) -> str:
    """A line for each problem: how long its learners take from the beginning, runs that are done included."""
    from taskshift.estimate import duration  # torch, which nothing else here needs

    lines = []
    for problem in {problem.name: problem for problem, _ in work}.values():
        entries = [entry for other, entry in work if other is problem]
        most = seeds or study.num_seeds
        piece = measured(study, problem, seeds=most, further=further)
        seconds = sum(_of_entry(study, problem, entry, piece, study.seeds_of(entry, seeds)) for entry in entries)
        rates = f"{piece.run_task * 1e3:.1f} ms a run's task, {piece.start:.0f} s to start a stack"
        sizes = f"{len(entries)} learners, {num_tasks(problem.words)} tasks, {most} seeds"
        lines.append(f"{problem.title}: {sizes}: about {duration(seconds)} on one core ({rates})")
    return "\n".join(lines)


def measured(study: Study, problem: Problem, *, seeds: int, further: Sequence[str]) -> Piece:
    """What a stack of backprop takes, of as many runs as the results have, from its first two tasks."""
    words = [word for word in problem.words if not word.startswith(NUM_TASKS)]
    short = replace(problem, words=[*words, f"{NUM_TASKS}2"])
    with tempfile.TemporaryDirectory() as place:
        there = replace(study, output=Path(place))
        command = [sys.executable, str(TRAIN), *there.command(short, study.entries[BASE], None, seeds), *further]
        begin = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        whole = time.monotonic() - begin
        runs = read_sweeps([there.folder(short, study.entries[BASE])])
        second = max(run.rows("task/seconds")[-1]["task/seconds"] for run in runs)
    return Piece(max(0.0, whole - 2 * second), second / len(runs))


def num_tasks(words: Sequence[str]) -> int:
    """What the last of the words that says it says."""
    return next(int(word.removeprefix(NUM_TASKS)) for word in reversed(words) if word.startswith(NUM_TASKS))


def _of_entry(study: Study, problem: Problem, entry: Entry, piece: Piece, seeds: int) -> float:
    """Tuning and results; a learner's steps cost `cost` times backprop's."""
    tried = len(entry.values) * len(study.tuning_seeds) * num_tasks([*problem.words, *problem.tuning])
    stacks = 1 if entry.key is None else 2
    return stacks * piece.start + (seeds * num_tasks(problem.words) + tried) * piece.run_task * entry.cost
