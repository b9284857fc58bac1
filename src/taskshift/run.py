"""A run from where it stands to its end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from taskshift import estimate
from taskshift.barriers import complete_matrix
from taskshift.config.build import build_parts, device_of
from taskshift.faults import Fault
from taskshift.job import Job
from taskshift.measure import measure
from taskshift.optimized_metric import optimized_metric
from taskshift.origin import default_run_name, resume_command, source_hash
from taskshift.run_folder import RunFolder, read_rows, run_folder_of, sweep_path
from taskshift.stack import StackShared
from taskshift.sweeps.open_files import allow_many_files
from taskshift.sweeps.sweep_folder import SweepFolder
from taskshift.sweeps.worker import leave_word
from taskshift.together import LiveRun, carry
from taskshift.trainer import Wishes, train, wishes_of

log = logging.getLogger(__name__)


def run(config: Mapping[str, Any], overrides: Sequence[str] = ()) -> RunFolder:
    """Carry a run from where it stands to its end; return where everything was written.

    `config` is resolved and plain, with `arch` put in by `taskshift.config`; `overrides` are the command's own words.
    Raises Fault for what a user can mend.
    """
    job = build(config, overrides)
    with job.opened():
        introduce(job)
        for task in job.remaining_tasks():
            measure(job, task, "start")
            train(job, task)
            measure(job, task, "end")
        complete_matrix(job.parts, job.folder, job.progress.task)
        summarise(job)
    tell(job)
    return job.folder


def judged(config: Mapping[str, Any], overrides: Sequence[str] = ()) -> float:
    """Carry a run to its end; return its objective, the last task's accuracy unless the config names another metric."""
    folder = run(config, overrides)
    return optimized_metric(read_rows(folder.path), config["objective"])


def _member(config: Mapping[str, Any], overrides: Sequence[str], stack: StackShared) -> Wishes:
    """`run`, by somebody who grants the wishes."""
    job = build(config, overrides, stack=stack)
    with closing(job.parts.training), job.opened():
        introduce(job)
        for task in job.remaining_tasks():
            measure(job, task, "start")
            yield from wishes_of(job, task)
            measure(job, task, "end")
        complete_matrix(job.parts, job.folder, job.progress.task)
        summarise(job)
    refuse_failed(job)


def run_together(configs: Sequence[Mapping[str, Any]], overrides: Sequence[Sequence[str]]) -> list[Exception | None]:
    """Carry several runs, equal but for seed and settings, to their ends in this process; what each raised, or None, in order.

    A run that fails leaves its FAILED file and stops no other. What ends the process (Ctrl-C) ends them all.
    """
    if not configs:  # all were done meanwhile
        return []
    allow_many_files()
    stack, device = StackShared(len(configs), configs[0]["checkpoints"]["every_seconds"]), device_of(configs[0]["device"])
    members = [LiveRun(partial(_member, *one, stack), device) for one in zip(configs, overrides, strict=True)]
    outcomes: list[Exception | None] = [None] * len(members)
    places = {member: number for number, member in enumerate(members)}

    def guarded(member: LiveRun, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as error:  # the runs beside it must still go on; who called is told
            leave_word(configs[places[member]], error)
            outcomes[places[member]] = error
            return False
        return True

    carry(members, stack, guarded)
    return outcomes


def build(config: Mapping[str, Any], overrides: Sequence[str] = (), *, stack: StackShared | None = None) -> Job:
    """Construct every object of a run, also of one of a stack; touches no disk."""
    parts = build_parts(config, None if stack is None else stack.data)
    if stack is not None:
        parts = replace(parts, recorders=stack.with_display_once(parts.recorders))
    named = dict(config) | {"run_name": config["run_name"] or default_run_name(config, datetime.now())}
    return Job(named, parts, run_folder_of(named), resume_command(sys.argv, overrides, named), stack=stack)


def introduce(job: Job) -> None:
    """Say where the run writes, how to go on with it, and what it will cost."""
    log.info("writing to %s", job.folder.path.resolve())
    _warn_of_other_code(job.config)
    log.info("to go on after an interruption: %s", job.resume_command)
    log.info("%s", job.execution)
    if job.parts.stream.note:
        log.info(job.parts.stream.note)
    if job.progress.task < job.parts.top.num_tasks and job.stack is None:
        log.info(estimate.before(job.parts, job.progress.task))


def _warn_of_other_code(config: Mapping[str, Any]) -> None:
    """Say so where a sweep's first launcher saw other code than this run does."""
    sweep = SweepFolder(sweep_path(config)) if config["sweep_name"] is not None else None
    source = sweep.read()["source"] if sweep is not None and sweep.file.exists() else None
    if source is not None and source["hash"] != source_hash(tuple(source["plugins"])):
        log.warning("the code has changed since this sweep began: its runs may differ for that reason")


def summarise(job: Job) -> None:
    """Write the table and, of a run that is no sweep's member, pictures and page; what can't be drawn does not stop the run."""
    from taskshift.coupling import write_coupling
    from taskshift.summary import write_summary_table

    write_summary_table(job.folder.path)
    write_coupling(job.folder.path)
    if job.config["sweep_name"] is not None:  # of hundreds of runs few are looked at: `taskshift plot` draws a member's
        return
    _draw(job.folder.path)


def _draw(folder: Path) -> None:
    """The summary pictures, and the page that shows everything; all that was measured is whole, and either can be made later."""
    from taskshift.pictures.summary import draw_summary
    from taskshift.report.make import write_run_report

    made = {"the pictures were not drawn": (draw_summary, "plot"), "the page was not made": (write_run_report, "report")}
    for what, (make, command) in made.items():
        try:
            make(folder)
        except OSError:
            raise
        except Exception as error:
            told = type(error).__name__, error
            log.warning("%s (%s: %s); `taskshift %s %s` tries again", what, *told, command, folder)


def tell(job: Job) -> None:
    """Print the table, and say what failed."""
    from taskshift.summary import print_table

    print_table(job.folder.path, Console())
    refuse_failed(job)


def refuse_failed(job: Job) -> None:
    """Raise a Fault where evaluators failed and were marked."""
    if job.failed:
        raise Fault(f"{len(job.failed)} evaluations failed, the rest is whole; see " + ", ".join(job.failed))
