"""What a path on the command line holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from loss_landscape.storage.connection import StorageInUseError
from loss_landscape.storage.database import LandscapeStorage
from loss_landscape.storage.landscape_file import read_landscape
from loss_landscape.storage.records import LandscapeRecord
from loss_landscape.writer.metadata import full_record

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
    if not path.exists():
        raise Refusal(f"there is no {path}")
    with refusals():
        if path.is_file():
            return _from_database(path) if path.suffix == ".duckdb" else read_landscape(path)
        return _of_folder(path)


def _of_folder(folder: Path) -> LandscapeRecord:
    if (folder / "run.json").exists():
        raise Refusal(f"{folder} is a run of train.py, not a Writer's folder: `taskshift report {folder}` makes its page")
    database, file = folder / DATABASE, folder / JSON
    if not database.exists() and not file.exists():
        raise Refusal(f"{folder} has neither {DATABASE} nor {JSON}: it is no folder of a LossLandscapeWriter")
    if not database.exists():
        return read_landscape(file)
    try:
        return _from_database(database)
    except (ImportError, StorageInUseError):
        if not file.exists():
            raise
        return read_landscape(file)  # no duckdb here, or a Writer is at work: the last export


def _from_database(path: Path) -> LandscapeRecord:
    with LandscapeStorage(path, read_only=True) as storage:
        return full_record(storage)
