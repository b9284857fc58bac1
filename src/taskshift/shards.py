"""The analysis of a kept net in parts that are computed apart, in one process after the other or in several at a time."""

from __future__ import annotations

import fcntl
import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import torch

from loss_landscape.shards import Shard
from taskshift.analysis import Analysis, has_findings
from taskshift.config.build import build_parts
from taskshift.config.check import enabled, evaluator_blocks
from taskshift.evaluators.evaluator import MeasuredPhase
from taskshift.faults import Fault
from taskshift.intact import read_json, write_json
from taskshift.job import warn_of_another_machine
from taskshift.measured import Order, analysis_of, order_of, take_identity
from taskshift.origin import cpu_model

log = logging.getLogger(__name__)


def complete(order: Order, analysis: Analysis) -> None:
    """Compute the shards of an analysis that are missing; what they share is computed first, once."""
    if not (left := missing(order, analysis.task.index)):
        return
    analysis.prepare()
    log.info("task %d: computing %d of %d shards", analysis.task.index, len(left), order.num_shards)
    if order.workers > 1:
        _in_processes(order, analysis, left)
    else:
        for shard in left:
            compute(analysis, shard)
    _warn_of_other_machines(order, analysis)


def missing(order: Order, task: int) -> list[Shard]:
    """The shards that have not finished; none where all evaluators have."""
    folder, count = order.folder.analysis(task, order.phase), order.num_shards
    if count == 1 or not unfinished(order, task):
        return []
    return [shard for index in range(count) if not _mark(folder, shard := Shard(index, count)).exists()]


def unfinished(order: Order, task: int) -> list[str]:
    """The evaluators that have no findings yet."""
    lla, folder = order.config["lla"], order.folder.analysis(task, order.phase)
    return [name for name in evaluator_blocks(lla) if enabled(lla, name) and not has_findings(folder / name)]


def run_shard(folder: Path, task: int, phase: MeasuredPhase, shard: Shard) -> None:
    """Compute one shard of what is measured in `folder`, in a process of its own."""
    order = order_of(folder, task, phase)
    parts = build_parts(order.config)
    take_identity(order, parts)
    compute(analysis_of(order, parts, task), shard)


def compute(analysis: Analysis, shard: Shard) -> None:
    """Compute one shard, unless another process has or does; a later call takes up what an interrupted one has kept."""
    mark = _mark(analysis.folder, shard)
    with _alone(mark):
        if mark.exists():
            return
        analysis.compute_share(shard)
        machine = {"cpu": cpu_model(), "device": str(analysis.parts.device), "num_threads": torch.get_num_threads()}
        write_json(mark, machine)


def _mark(folder: Path, shard: Shard) -> Path:
    """The file that says that a shard of an analysis has finished, and where."""
    return folder / ".scratch" / "shards" / f"{shard.index}_of_{shard.count}.json"


@contextmanager
def _alone(mark: Path) -> Iterator[None]:
    """Wait for whoever computes this very shard, then hold it."""
    mark.parent.mkdir(parents=True, exist_ok=True)
    with mark.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _in_processes(order: Order, analysis: Analysis, left: Sequence[Shard]) -> None:
    where = order.folder.path.resolve(), analysis.task.index, analysis.phase
    context = multiprocessing.get_context("spawn")  # a fork would share threads and the GPU's state
    with ProcessPoolExecutor(min(order.workers, len(left)), mp_context=context) as pool:
        futures = {shard: pool.submit(run_shard, *where, shard) for shard in left}
    failed = [f"shard {shard.index}: {why}" for shard, future in futures.items() if (why := _failure(future))]
    if failed:
        count = f"{len(failed)} of {order.num_shards} shards failed"
        raise Fault(*failed, f"{count}; what is finished is kept, and the same command goes on from there")


def _failure(future: Future[None]) -> str | None:
    error = future.exception()
    if error is None:
        return None
    if isinstance(error, BrokenProcessPool):
        return "its process, or one beside it, was killed"
    return str(error) if isinstance(error, Fault) else f"{type(error).__name__}: {error}"


def _warn_of_other_machines(order: Order, analysis: Analysis) -> None:
    """Say where a shard was computed on another machine than the measurement began on."""
    known = read_json(order.folder.path / "measure.json")
    made = [read_json(path) for path in sorted(_mark(analysis.folder, Shard(0, 1)).parent.glob("*.json"))]
    for cpu, device, threads in sorted({(m["cpu"], m["device"], m["num_threads"]) for m in made}):
        warn_of_another_machine(known, device, threads, cpu)
