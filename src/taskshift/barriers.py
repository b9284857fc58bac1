"""The barriers on the straight lines between the nets of a run's tasks, on the data of either: a matrix at the run's end."""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from loss_landscape import LossSurface, barrier
from loss_landscape.files import write_whole
from taskshift import checkpoint
from taskshift.analysis import Analysis
from taskshift.config.build import Parts
from taskshift.estimate import duration
from taskshift.evaluators.mode_connectivity import ModeConnectivity, connecting_surface
from taskshift.faults import Fault
from taskshift.intact import read_json, write_json, write_text
from taskshift.run_folder import RunFolder

log = logging.getLogger(__name__)

NUM_POINTS = 25  # of a line


@dataclass(frozen=True)
class Line:
    """The straight line from the net at the end of task `start` to that of task `end`, on the data of task `end`."""

    start: int
    end: int
    barrier: float
    highest_loss: float
    start_loss: float
    end_loss: float


def complete_matrix(parts: Parts, folder: RunFolder, num_tasks: int) -> None:
    """Measure the barriers that are missing between the nets of the first `num_tasks` tasks; write summary/barrier_matrix.*.

    Nothing where `mode_connectivity` or its `matrix` is off, or fewer than two nets were kept. Lines that are done are kept in
    checkpoints/barriers.json: a run that is cut off, or is given more tasks, goes on from there.
    """
    switched_on = [one for one in parts.evaluators.values() if isinstance(one, ModeConnectivity) and one.matrix]
    nets = folder.nets_before(num_tasks)
    if not switched_on or len(nets) < 2:
        return
    tasks = evenly(sorted(nets), switched_on[0].max_matrix_tasks)
    kept = folder.path / "checkpoints" / "barriers.json"
    lines = _known(kept)
    missing = [(start, end) for end in tasks for start in tasks if start != end and (start, end) not in lines]
    for line in _measured(parts, folder, missing):
        lines[line.start, line.end] = line
        write_json(kept, {"lines": [asdict(one) for one in lines.values()]})
    _write(folder.path / "summary", tasks, lines)


def evenly(tasks: Sequence[int], most: int) -> list[int]:
    """At most `most` of the tasks, spread evenly, the first and the last among them."""
    return [tasks[index] for index in np.linspace(0, len(tasks) - 1, min(len(tasks), most)).round().astype(int)]


def _known(kept: Path) -> dict[tuple[int, int], Line]:
    try:
        lines = [Line(**one) for one in read_json(kept, "its lines are measured again")["lines"]] if kept.exists() else []
    except Fault as fault:
        log.warning("%s", fault)
        lines = []
    return {(line.start, line.end): line for line in lines}


def _measured(parts: Parts, folder: RunFolder, missing: Sequence[tuple[int, int]]) -> Iterator[Line]:
    """The missing lines, one task's data after the other; after the first, says how long they will take."""
    data_of, began = None, time.perf_counter()
    for done, (start, end) in enumerate(missing):
        if end != data_of:
            surface, data_of = _surface(parts, folder, end), end
        ends = [checkpoint.load(folder.task_checkpoint(task))["net"] for task in (start, end)]
        found = barrier(surface, *ends, num_points=NUM_POINTS)
        yield Line(start, end, found.barrier, found.highest, float(found.losses[0]), float(found.losses[-1]))
        if done == 0:
            about = duration((time.perf_counter() - began) * len(missing))
            log.info("barriers between the tasks' nets: %d lines of %d points, about %s", len(missing), NUM_POINTS, about)


def _surface(parts: Parts, folder: RunFolder, task: int) -> LossSurface:
    """The loss on the task's evaluation data, the same as its evaluators saw."""
    at_end = folder.analysis(task, "end"), folder.eigenpairs(task, "end"), folder.initial
    return connecting_surface(Analysis(parts, parts.stream[task], "end", *at_end).measurement)


def _write(summary: Path, tasks: Sequence[int], lines: Mapping[tuple[int, int], Line]) -> None:
    """Put the lines between `tasks` into matrices: a row for the net that a line begins at, a column for the one it ends at."""
    found = {name: _matrix(tasks, lines, name) for name in ("barrier", "highest_loss", "start_loss")}
    losses = found.pop("start_loss")  # of every net on every task's data
    content = {
        "tasks": list(tasks),
        "num_points": NUM_POINTS,
        "row": "the task at whose end the net was saved that the line begins at",
        "column": "the task at whose end the net was saved that the line ends at; the loss is over this task's data",
        **{name: matrix.tolist() for name, matrix in found.items()},
        "loss": losses.tolist(),
    }
    write_whole(summary / "barrier_matrix.npy", lambda path: np.save(path, found["barrier"]))
    write_text(summary / "barrier_matrix.json", json.dumps(content, indent=2) + "\n")


def _matrix(tasks: Sequence[int], lines: Mapping[tuple[int, int], Line], name: str) -> np.ndarray:
    """What the lines call `name`, [tasks, tasks] float64; from a net to itself no barrier, its own loss all along."""
    matrix = np.zeros((len(tasks), len(tasks)))
    for (row, start), (column, end) in itertools.product(enumerate(tasks), repeat=2):
        if start != end:
            matrix[row, column] = getattr(lines[start, end], name)
        elif name != "barrier":
            matrix[row, column] = next(line.end_loss for line in lines.values() if line.end == end)
    return matrix
