"""A run's folder: its places, its lock, its record."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from taskshift.faults import Fault
from taskshift.intact import absent, damaged, read_json, write_json, write_text
from taskshift.quantities import Quantities
from taskshift.run_quantities import COST, TRAINING

SECONDS_OF_A_LOOK = 0.5

HALF_A_FOLDER = re.compile(r"\.[^.]+\.partial")
"""An evaluator's folder before it is whole."""

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
"""What a disk says that is full, or may not be written."""

PAGE = "report.html"
"""What shows a run, or a sweep, in a browser."""

GIVE_BACK = "put a copy of it back, or give another run_name"


@dataclass(frozen=True)
class Written:
    """How much of the record there is: its rows, and the CRC-32 of their text."""

    num_rows: int = 0
    checksum: int = 0

    def after(self, row: Mapping[str, float]) -> Written:
        return Written(self.num_rows + 1, zlib.crc32(line_of(row), self.checksum))


def line_of(row: Mapping[str, float]) -> bytes:
    """A row as the record has it."""
    return json.dumps(row).encode() + b"\n"


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

    @property
    def done(self) -> Path:
        """Says for how many tasks the run has ended well, and when."""
        return self.path / "DONE"

    @property
    def failed(self) -> Path:
        """Says why the last attempt failed: a sentence, or a bug's traceback."""
        return self.path / "FAILED"

    def begin_attempt(self) -> None:
        """Take away what an earlier attempt said of its end."""
        self.done.unlink(missing_ok=True)
        self.failed.unlink(missing_ok=True)

    def end_attempt(self, num_tasks: int, diverged: str | None = None) -> None:
        """Say that the run has come to its end, and where its loss was lost on the way."""
        ended = datetime.now().astimezone().isoformat(timespec="seconds")
        write_json(self.done, {"num_tasks": num_tasks, "ended": ended, "diverged": diverged})

    def fail_attempt(self, why: str) -> None:
        """Say why the run could not go on."""
        write_text(self.failed, why.rstrip() + "\n")

    def tasks_done(self) -> int:
        """For how many tasks the run has ended well, 0 where it has not, or does not say so any more."""
        try:
            return read_json(self.done)["num_tasks"]
        except Fault:  # called again, the run finds its end and says so anew
            return 0

    def diverged(self) -> str | None:
        """Where the loss of a run that has come to its end stopped being a number."""
        try:
            return read_json(self.done).get("diverged")
        except Fault:
            return None

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
        """Task → the net at its end, of earlier tasks whose nets were kept: those from the oldest on that is there."""
        found = [task_of(path) for path in self.task_checkpoints_before(task)]
        return {index: self.task_checkpoint(index) for index in range(min(found), max(found) + 1)} if found else {}

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
            if self.latest.exists():
                raise absent(self.path / "run.json", GIVE_BACK)
            raise Fault(f"{self.path} exists and is not a run of ours; give another run_name=… or move it away")
        with held(self.path, "give this run a run_name of its own"):
            yield

    def half_written(self) -> list[Path]:
        """Files and folders that were to take a name when they are whole, without what lies in such a folder.

        Those of measurements are other processes' business.
        """
        own = [path for path in self.path.iterdir() if path.name not in ("wandb", "measured", "jobs")]
        below = [found for path in own if path.is_dir() for found in path.rglob(".*")]
        half = [path for path in (*own, *below) if path.name.startswith(".partial.") or HALF_A_FOLDER.fullmatch(path.name)]
        return [path for path in half if not any(folder in path.parents for folder in half)]

    def _strangers(self) -> Iterator[Path]:
        """What lies here that a run killed in its first moments would not have left."""
        ours = (".lock", self.failed.name)
        return (entry for entry in self.path.iterdir() if entry.name not in ours and not entry.name.startswith(".partial."))

    def known_run(self) -> dict[str, Any] | None:
        """What `run.json` says of the run that lives here, or None for a new folder."""
        path = self.path / "run.json"
        return read_json(path, GIVE_BACK) if path.exists() else None

    def write_run(self, about: Mapping[str, Any]) -> None:
        write_json(self.path / "run.json", about)

    def write_configs(self, config: Mapping[str, Any]) -> None:
        """Write `config.yaml`: everything the run was told, resolved."""
        import yaml

        text = yaml.safe_dump(dict(config), sort_keys=False)
        write_text(self.path / "config.yaml", text + seal_of(text))

    def write_quantities(self, quantities: Quantities) -> None:
        """Write `quantities.json`: what the record's numbers are, for who reads it without the code that logged them."""
        write_json(self.path / "quantities.json", {"quantities": quantities.to_json()})

    def has_trained(self) -> bool:
        """Whether the record holds an epoch: a checkpoint comes before the first one."""
        return any('"epoch_loss"' in line for line in whole_lines(self.path))

    def cut_rows(self, written: Written) -> list[dict[str, float]]:
        """Keep the rows that were `written` and return them; raises Fault where they are not all there, as they were."""
        text = self.metrics.read_bytes() if self.metrics.exists() else b""
        lines = text.splitlines(keepends=True)[: written.num_rows]
        kept = b"".join(lines)
        if len(lines) < written.num_rows:
            raise damaged(self.metrics, f"it has {len(lines)} of the {written.num_rows} rows that were written", GIVE_BACK)
        if zlib.crc32(kept) != written.checksum:
            raise damaged(self.metrics, f"its first {written.num_rows} rows are not as they were written", GIVE_BACK)
        if kept != text:
            write_text(self.metrics, kept.decode())
        return [json.loads(line) for line in lines]

    def append_row(self, row: Mapping[str, float]) -> None:
        """Add a row to the record, on the disk when this returns."""
        self.append_lines([line_of(row)])

    def append_lines(self, lines: Sequence[bytes]) -> None:
        """The same for several rows, as `line_of` gives them."""
        with self.metrics.open("ab") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())


SEAL_OF_TEXT = "# crc32 of what is above: "


def seal_of(text: str) -> str:
    """A last line for a YAML file that says whether it is as it was written."""
    return f"{SEAL_OF_TEXT}{zlib.crc32(text.encode()):08x}\n"


def run_folder_of(config: Mapping[str, Any]) -> RunFolder:
    """Where the run of a config with a run_name writes: below its net's folder, or in its sweep's."""
    parent = _project(config) / config["arch"] if config["sweep_name"] is None else sweep_path(config)
    return RunFolder(parent / config["run_name"], config["arch"])


def sweep_path(config: Mapping[str, Any]) -> Path:
    """The folder of the sweep that a config belongs to."""
    return _project(config) / "sweeps" / config["sweep_name"]


def _project(config: Mapping[str, Any]) -> Path:
    """The folder of all runs of a project; a relative `output_root` begins in the working directory."""
    return Path(config["output_root"]).expanduser() / config["output_project"]


@contextmanager
def held(folder: Path, otherwise: str) -> Iterator[None]:
    """Make the folder if need be and hold its lock; a second process is refused in a sentence that ends with `otherwise`."""
    _make(folder)
    with (folder / ".lock").open("w") as lock:
        if not _taken(lock):
            raise Fault(f"another process is at work in {folder}; wait for it, or {otherwise}")
        yield


def _make(folder: Path) -> None:
    """Make a folder; raises Fault where there can be none: a link that leads nowhere, a name that is too long, no real disk."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EEXIST, errno.ENAMETOOLONG):
            raise
        raise Fault(f"{folder} cannot be made: {error.strerror} ({error.filename}); give another output_root") from error


def _taken(lock: IO[str]) -> bool:
    """Whether the lock is ours now. Who asks `is_held` holds it for a moment, and must not turn a run away."""
    end = time.monotonic() + SECONDS_OF_A_LOOK
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        else:
            return True


@contextmanager
def disk_faults(folder: Path) -> Iterator[None]:
    """A disk that is full or may not be written is the user's to mend."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if (why := _why_unwritten(error)) is None:
            raise
        raise Fault(
            f"cannot write in {folder}: {why}; mend that and start the same command again, what was saved is whole"
        ) from error


def _why_unwritten(error: OSError | RuntimeError) -> str | None:
    """What a disk refused, None where the error is of another kind. torch and NumPy have words of their own for a full disk."""
    if isinstance(error, OSError) and error.errno is not None:
        where = f" ({error.filename})" if error.filename else ""  # a full disk is not told of any one file
        return f"{error.strerror}{where}" if error.errno in DISK_ERRORS else None
    if re.search(r"PytorchStreamWriter failed|inline_container.*unexpected pos|\d+ requested and \d+ written", str(error)):
        return "the disk took only a part of a file, it is full"
    return None


def is_held(folder: Path) -> bool:
    """Whether some process holds the folder's lock."""
    try:
        lock = (folder / ".lock").open()
    except FileNotFoundError:
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def read_quantities(folder: Path) -> Quantities:
    """What the numbers of a folder's record are; where it does not say so, those that every run logs."""
    path = folder / "quantities.json"
    if not path.exists():
        return Quantities([*TRAINING, *COST])
    return Quantities.from_json(read_json(path, "delete it; the run's own command writes it anew")["quantities"])


def read_rows(folder: Path, mentioning: str = "") -> list[dict[str, float]]:
    """Every whole row of a run's record, none where there is no record yet; a half-written last line is left out.

    `mentioning` leaves out, unread, the rows without that text: of a long record few rows are wanted.
    """
    return [read_row(folder, line, number) for number, line in enumerate(whole_lines(folder), start=1) if mentioning in line]


def read_row(folder: Path, line: str, number: int) -> dict[str, float]:
    """A line of the record, counted from 1; raises Fault for one that is no row."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        path = RunFolder(folder, arch="").metrics
        raise damaged(path, f"line {number} is no row: {error}", "put a copy of it back, or take the line out") from error


def whole_lines(folder: Path) -> list[str]:
    """The lines of a run's record as they were written, without a half-written last one."""
    path = RunFolder(folder, arch="").metrics
    return path.read_bytes().decode(errors="replace").split("\n")[:-1] if path.exists() else []


def task_of(path: Path) -> int:
    """The task that a file or folder named task_XXXX… is of."""
    return int(re.match(r"task_(\d+)", path.name)[1])


def _numbered_before(task: int, paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if task_of(path) < task]
