"""A mirror of the record in Weights & Biases: numbers and the config, nothing else. The only file that imports wandb."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from taskshift.recorders.numeric_rows import scalar
from taskshift.recorders.recorder import Opening, Recorder

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


class WandB(Recorder):
    """Opens at the first row, since importing wandb takes a second; any failure switches the mirror off, with one warning.

    A resumed run is written whole into one new offline file, the old one deleted: W&B would let the later file erase the earlier.
    """

    def __init__(self, project: str, entity: str | None, notes: str, mode: Literal["offline", "online", "disabled"]):
        self.project, self.entity, self.notes, self.mode = project, entity, notes, mode
        self._opening: Opening | None = None
        self._run: Any = None
        self._num_rows = 0  # in the mirror, and so W&B's next step

    def open(self, opening: Opening) -> None:
        if self.mode != "disabled":
            self._opening = opening

    def record(self, row: Mapping[str, float]) -> None:
        if self._opening is not None:
            opening, self._opening = self._opening, None
            self._start(opening)
            self._num_rows = self._run.step if self._run is not None else 0
            for earlier in opening.rows[self._num_rows :]:
                self._send(earlier)
        self._send(row)

    def close(self, ok: bool) -> None:
        if self._run is not None:
            try:
                self._run.finish(exit_code=0 if ok else 1)
            except Exception as error:
                self._off("closing", error)
        self._run = None

    def _send(self, row: Mapping[str, float]) -> None:
        if self._run is None:
            return
        numbers = {key: scalar(key, value) for key, value in row.items()}
        try:
            # commit: W&B holds a row with a step back until the next one, and would lose a run's last
            self._run.log(numbers, step=self._num_rows, commit=True)
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
            wandb.setup(wandb.Settings(silent=True))
            for mode in self._modes(wandb):
                if self._started(wandb, opening, mode):
                    return
        except Exception as error:
            self._off("starting", error)

    def _modes(self, wandb: ModuleType) -> tuple[str, ...]:
        if self.mode == "online" and not wandb.login(prompt=False, verify=False):
            log.warning("W&B goes offline: no account is set up here; `wandb login`, then `wandb sync` on the run's wandb folder")
            return ("offline",)
        return tuple(dict.fromkeys((self.mode, "offline")))

    def _started(self, wandb: ModuleType, opening: Opening, mode: str) -> bool:
        place, words = opening.folder / "wandb", opening.config["wandb"]
        for old in place.glob("offline-run-*"):
            shutil.rmtree(old, ignore_errors=True)
        try:
            self._run = wandb.init(
                mode=mode,
                dir=str(opening.folder),
                id=_run_id(place),
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
            self._run.define_metric("global_epoch")
            self._run.define_metric("*", step_metric="global_epoch")
        except Exception as error:
            self._off(f"starting {mode}", error)
            for left in place.glob(f"run-*-{_run_id(place)}"):
                shutil.rmtree(left, ignore_errors=True)
            return False
        return True

    def _off(self, doing: str, error: Exception) -> None:
        self._run = None
        log.warning("W&B failed in %s, and the run goes on without: %s", doing, _first_line(error))
        with contextlib.suppress(Exception, SystemExit):  # left alone, a helper that died is a traceback at the process's end
            import wandb

            wandb.teardown()


def _run_id(place: Path) -> str:
    """The run's id for W&B, kept beside its files so that a resumed run is the same one there."""
    file = place / "run_id.txt"
    if not file.exists():
        place.mkdir(parents=True, exist_ok=True)
        file.write_text(secrets.token_hex(5))
    return file.read_text()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
