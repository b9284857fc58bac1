"""What a path on the command line holds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from loss_landscape.cli.summary import NAMES
from loss_landscape.results.grid import Grid
from loss_landscape.results.landscape import MODES
from loss_landscape.storage.connection import StorageInUseError
from loss_landscape.storage.database import LandscapeStorage
from loss_landscape.storage.landscape_file import read_landscape
from loss_landscape.storage.records import LandscapeRecord
from loss_landscape.writer.metadata import full_record

T = TypeVar("T")
DATABASE, JSON = "landscape.duckdb", "landscape.json"


class Refusal(Exception):
    """What ends the command in its sentence."""


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Inside, what a file or a choice does wrong ends the command in a sentence."""
    try:
        yield
    except (OSError, ValueError, ImportError, StorageInUseError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        named = f"{error.filename}: {text}" if isinstance(error, OSError) and error.filename else text
        raise Refusal(named) from error


def record_at(path: Path) -> LandscapeRecord:
    """The record of a landscape file, of a database, or of a Writer's folder: its database, else its last export."""
    return _read(path, full_record, lambda record: record)


def landscapes_at(path: Path) -> tuple[LandscapeRecord, Mapping[str, Grid]]:
    """The same, and all of its landscapes by name, the oldest first; a landscape file has the last of each mode alone."""
    return _read(path, _all_landscapes, lambda record: (record, {NAMES[mode]: grid for mode, grid in record.grids.items()}))


def _all_landscapes(storage: LandscapeStorage) -> tuple[LandscapeRecord, Mapping[str, Grid]]:
    finished = storage.finished().items()
    return full_record(storage), {f"{NAMES[MODES[dim - 1]]}-{number}": storage.grid(number) for number, dim in finished}


def _read(path: Path, of_storage: Callable[[LandscapeStorage], T], of_record: Callable[[LandscapeRecord], T]) -> T:
    """What `of_storage` makes of the database there, or `of_record` of the file."""
    if not path.exists():
        raise Refusal(f"there is no {path}")
    with refusals():
        if path.is_file():
            return _from_database(path, of_storage) if path.suffix == ".duckdb" else of_record(read_landscape(path))
        return _of_folder(path, of_storage, of_record)


def _of_folder(folder: Path, of_storage: Callable[[LandscapeStorage], T], of_record: Callable[[LandscapeRecord], T]) -> T:
    if (folder / "run.json").exists():
        raise Refusal(f"{folder} is a run of train.py, not a Writer's folder: `taskshift plot {folder}` draws its pictures")
    database, file = folder / DATABASE, folder / JSON
    if not database.exists() and not file.exists():
        raise Refusal(f"{folder} has neither {DATABASE} nor {JSON}: it is no folder of a LossLandscapeWriter")
    if not database.exists():
        return of_record(read_landscape(file))
    try:
        return _from_database(database, of_storage)
    except (ImportError, StorageInUseError):
        if not file.exists():
            raise
        return of_record(read_landscape(file))  # no duckdb here, or a Writer is at work: the last export


def _from_database(path: Path, of_storage: Callable[[LandscapeStorage], T]) -> T:
    with LandscapeStorage(path, read_only=True) as storage:
        return of_storage(storage)
