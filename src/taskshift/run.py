"""A run from where it stands to its end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from taskshift import estimate
from taskshift.config.build import build_parts
from taskshift.faults import Fault
from taskshift.job import Job
from taskshift.measure import measure
from taskshift.origin import default_run_name, resume_command
from taskshift.run_folder import RunFolder
from taskshift.trainer import train

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
    summarise(job)
    return job.folder


def build(config: Mapping[str, Any], overrides: Sequence[str] = ()) -> Job:
    """Construct every object of a run; touches no disk."""
    parts = build_parts(config)
    named = dict(config) | {"run_name": config["run_name"] or default_run_name(config, datetime.now())}
    folder = RunFolder(Path("outputs") / named["output_project"] / named["arch"] / named["run_name"], named["arch"])
    return Job(named, parts, folder, resume_command(sys.argv, overrides, named["run_name"]))


def introduce(job: Job) -> None:
    """Say where the run writes, how to go on with it, and what it will cost."""
    log.info("writing to %s", job.folder.path.resolve())
    log.info("to go on after an interruption: %s", job.resume_command)
    if job.parts.data.note:
        log.info(job.parts.data.note)
    if job.progress.task < job.parts.top.num_tasks:
        log.info(estimate.before(job.parts, job.progress.task))


def summarise(job: Job) -> None:
    """Draw the summary pictures, print the table, and say what failed."""
    from taskshift.plot import draw_summary
    from taskshift.summary import print_table, write_summary_table

    write_summary_table(job.folder.path)
    draw_summary(job.folder.path)
    print_table(job.folder.path, Console())
    if job.failed:
        raise Fault(f"{len(job.failed)} evaluations failed, the rest is whole; see " + ", ".join(job.failed))
