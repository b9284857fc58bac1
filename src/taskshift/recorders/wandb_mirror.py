"""A mirror of the record in Weights & Biases: numbers and the config, nothing else. The only file that imports wandb."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from taskshift.intact import write_text
from taskshift.recorders.numeric_rows import scalar
from taskshift.recorders.recorder import Opening, Recorder
from taskshift.recorders.within import within

log = logging.getLogger(__name__)

NUMBERS_ALONE = {
    "console": "off",  # the terminal's text
    "disable_git": True,  # remote, commit, diff
    "disable_code": True,
    "save_code": False,
    "disable_job_creation": True,
    "x_disable_stats": True,  # load of the machine, every 15 seconds
    "x_disable_meta": True,  # command line, paths, system, start time
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "host": "-",
    "silent": True,
    "x_transaction_log_flush_interval": 0.1,  # seconds of rows that a kill may cost the mirror
    "finish_timeout": 30.0,  # without it a server that died holds the end of a run for ever
    "init_timeout": 15.0,
}
"""W&B's switches. Some are private names, so an unknown one means no mirror rather than one that says too much."""

SECONDS_TO_ANSWER = 60.0
"""How long one call of W&B may take: longer than its own limits above, which it does not keep where its helper cannot start."""

SECONDS_TO_END = 10.0
"""How long its helper may take to end, when all is written."""

RUN_ID = re.compile(r"[0-9a-f]{10}")


class WandB(Recorder):
    """Opens at the first row, since importing wandb takes a second; any failure switches the mirror off, with one warning.

    A resumed run is written whole into one new offline file, the old one deleted: W&B would let the later file erase the earlier.
    Every call is given up after `SECONDS_TO_ANSWER`: it waits for W&B's helper, another process, which may never answer.
    """

    def __init__(self, project: str, entity: str | None, notes: str, mode: Literal["offline", "online", "disabled"]):
        self.project, self.entity, self.notes, self.mode = project, entity, notes, mode
        self._opening: Opening | None = None
        self._folder = Path()
        self._run: Any = None
        self._num_rows = 0  # in the mirror, and so W&B's next step

    def open(self, opening: Opening) -> None:
        if self.mode != "disabled":
            self._opening = opening

    def record(self, row: Mapping[str, float]) -> None:
        if self._opening is not None:
            self._catch_up(self._opening)
        self._send(row)

    def close(self, ok: bool) -> None:
        if ok and self._opening is not None and self._is_unfinished(self._opening):
            self._catch_up(self._opening)
        if self._run is not None:
            try:
                within(SECONDS_TO_ANSWER, partial(self._run.finish, exit_code=0 if ok else 1))
                write_text(_finished(self._folder), f"{self._num_rows}\n")
            except Exception as error:
                self._off("closing", error)
        self._opening = self._run = None

    def _catch_up(self, opening: Opening) -> None:
        """Open the mirror, and bring it to where the record is."""
        self._opening, self._folder = None, opening.folder
        _finished(opening.folder).unlink(missing_ok=True)
        self._start(opening)
        self._num_rows = self._run.step if self._run is not None else 0
        for earlier in opening.rows[self._num_rows :]:
            self._send(earlier)

    def _is_unfinished(self, opening: Opening) -> bool:
        """Whether an earlier attempt died between the last row and the mirror's end."""
        finished = _finished(opening.folder)
        return bool(opening.rows) and not (finished.exists() and finished.read_text() == f"{len(opening.rows)}\n")

    def _send(self, row: Mapping[str, float]) -> None:
        if self._run is None:
            return
        numbers = {key: scalar(key, value) for key, value in row.items()}
        try:
            # commit: W&B holds a row with a step back until the next one, and would lose a run's last
            within(SECONDS_TO_ANSWER, partial(self._run.log, numbers, step=self._num_rows, commit=True))
            self._num_rows += 1
        except Exception as error:
            self._off("logging", error)

    def _start(self, opening: Opening) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its helper looks up a telemetry host, offline too
        try:
            import wandb

            unknown = sorted(set(NUMBERS_ALONE) - set(wandb.Settings.model_fields))
            if unknown:
                log.error(
                    "W&B is off: wandb %s no longer knows %s, which kept all but numbers back; install wandb>=0.31,<0.32",
                    wandb.__version__,
                    ", ".join(unknown),
                )
                return
            _report_nothing()
            atexit.register(_end_helper)
            within(SECONDS_TO_ANSWER, partial(wandb.setup, wandb.Settings(silent=True)))
            for mode in self._modes(wandb):
                if self._started(wandb, opening, mode):
                    return
        except Exception as error:
            self._off("starting", error)

    def _modes(self, wandb: ModuleType) -> tuple[str, ...]:
        if self.mode == "online" and not within(SECONDS_TO_ANSWER, partial(wandb.login, prompt=False, verify=False)):
            log.warning("W&B goes offline: no account is set up here; `wandb login`, then `wandb sync` on the run's wandb folder")
            return ("offline",)
        return tuple(dict.fromkeys((self.mode, "offline")))

    def _started(self, wandb: ModuleType, opening: Opening, mode: str) -> bool:
        place = opening.folder / "wandb"
        for old in place.glob("offline-run-*"):
            shutil.rmtree(old, ignore_errors=True)
        try:
            self._run = within(SECONDS_TO_ANSWER, partial(self._initialised, wandb, opening, mode))
        except Exception as error:
            self._off(f"starting {mode}", error)
            for left in place.glob(f"run-*-{_run_id(place)}"):
                shutil.rmtree(left, ignore_errors=True)
            return False
        return True

    def _initialised(self, wandb: ModuleType, opening: Opening, mode: str) -> Any:
        words = opening.config["wandb"]
        run = wandb.init(
            mode=mode,
            dir=str(opening.folder),
            id=_run_id(opening.folder / "wandb"),
            resume="allow",
            reinit="create_new",  # by default a second run in a process is silently the first
            name=words["name"] or opening.run_name,
            group=words["group"] or opening.config["sweep_name"],
            project=self.project,
            entity=self.entity,
            notes=self.notes,
            config=dict(opening.config),
            settings=wandb.Settings(**NUMBERS_ALONE),
        )
        run.define_metric("global_epoch")
        run.define_metric("*", step_metric="global_epoch")
        return run

    def _off(self, doing: str, error: Exception) -> None:
        self._run = None
        log.warning("W&B failed in %s, and the run goes on without: %s", doing, _first_line(error))
        _end_helper()  # left alone, a helper that died is a traceback at the process's end


def _report_nothing() -> None:
    """Turn W&B's reports about itself off: with them on, 0.31 waits for its own lock for ever where its helper cannot start."""
    from wandb.analytics.opentelemetry import opentelemetry_proxy

    opentelemetry_proxy.disable()


def _end_helper() -> None:
    """Let W&B's helper end, and kill one that doesn't answer: at its end the process would wait for it for ever."""
    with contextlib.suppress(Exception, SystemExit):
        import wandb
        from wandb.sdk import wandb_setup

        kept = wandb_setup._singleton
        helper = kept and kept._connection and kept._connection._proc
        try:
            within(SECONDS_TO_END, wandb.teardown)
        finally:  # whatever teardown raised: a helper that does not answer may be abandoned by W&B before the time is over
            if helper and helper._process.poll() is None:
                helper._process.kill()
                helper._process.wait()


def _finished(folder: Path) -> Path:
    """Says how many rows the run's mirror ended with."""
    return folder / "wandb" / "finished.txt"


def _run_id(place: Path) -> str:
    """The run's id for W&B, kept beside its files so that a resumed run is the same one there."""
    file = place / "run_id.txt"
    if not (file.exists() and RUN_ID.fullmatch(file.read_text())):
        write_text(file, secrets.token_hex(5))
    return file.read_text()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
