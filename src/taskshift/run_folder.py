"""A run's folder: its places, its lock, its identity, its record."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taskshift.checkpoint import write_text
from taskshift.faults import Fault

IDENTITY = (
    "seed", "arch", "data", "net", "learner", "task_shift_mode", "task_shift",
    "epochs", "batch_size", "evaluate_every", "plugins", "lla",
)  # fmt: skip
"""The keys that make a run what it is; all others may change when it is resumed."""

FREE = ("data.root", "data.download", "lla.on_error", "lla.shards", "lla.runtime")
"""Keys below those of `IDENTITY` that may change all the same."""


class RunFolder:
    """Where one run writes. Making the object touches no disk."""

    def __init__(self, path: Path, arch: str):
        self.path, self.arch = path, arch

    @property
    def metrics(self) -> Path:
        """The record: one JSON object a line, numbers only."""
        return self.path / "metrics.jsonl"

    @property
    def latest(self) -> Path:
        return self.path / "checkpoints" / "latest.pt"

    @property
    def initial(self) -> Path:
        """The net before its first step."""
        return self.path / "checkpoints" / "initial.pt"

    def task_checkpoint(self, task: int) -> Path:
        """The net after a task's training."""
        return self.path / "checkpoints" / f"task_{task:04d}.pt"

    def eigenpairs(self, task: int, phase: str) -> Path:
        return self.path / "checkpoints" / "eigenpairs" / f"task_{task:04d}_{phase}.pt"

    def eigenpairs_before(self, task: int) -> list[Path]:
        """The files of eigenpairs of earlier tasks."""
        return _numbered_before(task, (self.path / "checkpoints" / "eigenpairs").glob("task_*.pt"))

    def task_checkpoints_before(self, task: int) -> list[Path]:
        """The nets of earlier tasks."""
        return _numbered_before(task, (self.path / "checkpoints").glob("task_*.pt"))

    def nets_before(self, task: int) -> dict[int, Path]:
        """Task → the net at its end, of earlier tasks whose nets were kept."""
        return {index: path for index in range(task) if (path := self.task_checkpoint(index)).exists()}

    def trajectories_before(self, task: int) -> list[Path]:
        """The folders of snapshots of earlier tasks."""
        return _numbered_before(task, (self.path / "checkpoints" / "trajectory").glob("task_*"))

    def trajectory(self, task: int) -> Path:
        """The folder of the net's states over one task's steps."""
        return self.path / "checkpoints" / "trajectory" / f"task_{task:04d}"

    def analysis(self, task: int, phase: str) -> Path:
        """The folder of a task's evaluators."""
        folder = self.path / f"task_{task:04d}_{self.arch}"
        return folder / "start" if phase == "start" else folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder if need be and hold it; a second process is refused."""
        if self.path.exists() and not (self.path / "run.json").exists() and any(self._strangers()):
            raise Fault(f"{self.path} exists and is not a run of ours; give another run_name=… or move it away")
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Fault(
                    f"another process is at work in {self.path}; wait for it, or give this run a run_name of its own"
                ) from None
            yield

    def _strangers(self) -> Iterator[Path]:
        """What lies here that a run killed in its first moments would not have left."""
        return (entry for entry in self.path.iterdir() if entry.name != ".lock" and not entry.name.startswith(".partial."))

    def known_run(self) -> dict[str, Any] | None:
        """What `run.json` says of the run that lives here, or None for a new folder."""
        path = self.path / "run.json"
        return json.loads(path.read_text()) if path.exists() else None

    def write_run(self, about: Mapping[str, Any]) -> None:
        write_text(self.path / "run.json", json.dumps(about, indent=2) + "\n")

    def write_configs(self, config: Mapping[str, Any]) -> None:
        """Write `config.yaml`: everything the run was told, resolved."""
        import yaml

        write_text(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))

    def cut_rows(self, count: int) -> list[dict[str, float]]:
        """Keep the record's first `count` rows, and return them."""
        text = self.metrics.read_text() if self.metrics.exists() else ""
        lines = text.split("\n")[:count]
        kept = "".join(f"{line}\n" for line in lines if line)
        if kept != text:
            write_text(self.metrics, kept)
        return [json.loads(line) for line in kept.splitlines()]

    def append_row(self, row: Mapping[str, float]) -> None:
        """Add a row to the record, on the disk when this returns."""
        with self.metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())


def read_rows(folder: Path) -> list[dict[str, float]]:
    """Every whole row of a run's record, none where there is no record yet; a half-written last line is left out."""
    path = RunFolder(folder, arch="").metrics
    lines = path.read_text().split("\n") if path.exists() else [""]
    return [json.loads(line) for line in lines[:-1]]


def _numbered_before(task: int, paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if int(re.match(r"task_(\d+)", path.name).group(1)) < task]


def refuse_another_identity(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> None:
    """Raise a Fault naming the differing keys where `new` is not the run that `old` describes.

    Evaluators may be switched off, never on: earlier tasks lack their numbers. `num_tasks` may grow.
    """
    before, after = identity(old), identity(new)
    sentences = [
        f"{key}: this folder's run has {before.get(key, 'no such key')!r}, the command says {after.get(key, 'no such key')!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, _ABSENT) != after.get(key, _ABSENT) and not _switched_off(key, before, after)
    ]
    if new["num_tasks"] < old["num_tasks"]:
        sentences.append(
            f"num_tasks: this folder's run has {old['num_tasks']}; it may be extended, not cut to {new['num_tasks']}"
        )
    if sentences:
        raise Fault(f"{path} holds another run; give another run_name, or the settings it has:", *sentences)


_ABSENT = object()


def _switched_off(key: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return key.startswith("lla.enable_") and before.get(key) is True and after.get(key) is False


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a run what it is, as dotted keys."""
    flat = dict(_flattened({key: config[key] for key in IDENTITY}))
    return {key: value for key, value in flat.items() if not any(key == free or key.startswith(f"{free}.") for free in FREE)}


def _flattened(node: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _flattened(value, f"{at}.{key}" if at else str(key))
    else:
        yield at, list(node) if isinstance(node, Sequence) and not isinstance(node, str) else node
