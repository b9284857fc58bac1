"""A DuckDB file, opened by one owner at a time; what goes wrong with it is said in a sentence."""

from __future__ import annotations

import contextlib
import errno
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from loss_landscape.files import UnreadableFileError, require_place

_open_here: weakref.WeakValueDictionary[Path, Database] = weakref.WeakValueDictionary()
"""The files that this process has open: DuckDB's own lock keeps off other processes alone."""


class StorageInUseError(RuntimeError):
    """Somebody else has the file open."""


class Database:
    """A connection to a DuckDB file, with its errors as sentences.

    Raises ImportError without duckdb, FileNotFoundError for a file that is to be read and is not there, StorageInUseError where
    somebody has it open, and UnreadableFileError for what is no such file, or is damaged.
    """

    def __init__(self, path: Path, *, read_only: bool = False):
        self.path, self._duckdb = path.resolve(), duckdb_module("the Writer's storage")
        self._connection: Any = None
        if self.path in _open_here and _open_here[self.path].is_open:
            raise StorageInUseError(f"{path} is open in this process already; close that storage or Writer first")
        if read_only and not self.path.exists():
            raise FileNotFoundError(f"there is no {path}")
        if not read_only or path.is_dir():
            require_place(self.path, such_as="landscape.duckdb")
        with self._explained():
            # one thread: a few thousand rows need no more, and the user's net may be at work
            self._connection = self._duckdb.connect(str(self.path), read_only=read_only, config={"threads": 1})
        _open_here[self.path] = self

    @property
    def is_open(self) -> bool:
        """Whether it can be asked."""
        return self._connection is not None

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a query gives, row by row."""
        with self._explained():
            return list(self._ask(query, values).fetchall())

    def columns(self, query: str, values: Sequence[Any] = ()) -> dict[str, np.ndarray]:
        """What a query gives, column by column; no entry may be NULL."""
        with self._explained():
            return dict(self._ask(query, values).fetchnumpy())

    def run(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Carry out a statement."""
        with self._explained():
            self._ask(statement, values)

    def insert(self, table: str, columns: Sequence[Sequence[Any]]) -> None:
        """Insert rows into a table, all at once; None is NULL, and NaN a number."""
        self.run(f"INSERT INTO {table} SELECT {', '.join(['unnest(?)'] * len(columns))}", columns)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Inside, all is written or nothing."""
        self.run("BEGIN")
        try:
            yield
        except BaseException:
            self.run("ROLLBACK")
            raise
        self.run("COMMIT")

    def close(self) -> None:
        """Let go of the file; once more does nothing."""
        if self._connection is not None:
            with self._explained():
                self._connection.close()
            self._connection = None
            _open_here.pop(self.path, None)

    def _ask(self, query: str, values: Sequence[Any]) -> Any:
        if self._connection is None:
            raise ValueError(f"{self.path} is closed; open it again with LandscapeStorage(…) or LossLandscapeWriter(…)")
        return self._connection.execute(query, list(values))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what DuckDB raises into the error that says what to do."""
        try:
            yield
        except self._duckdb.Error as error:
            text = " ".join(str(error).split())
            if "lock on file" in text:
                raise StorageInUseError(
                    f"{self.path} is open in another process, and one Writer at a time may have it; close that one, or give this "
                    "one another folder"
                ) from error
            if "Permission denied" in text or "Read-only file system" in text:
                said = "may not be written; name another place, or open it with read_only=True"
                raise PermissionError(errno.EACCES, said, str(self.path)) from error
            if "No space left" in text or "out of disk" in text.lower():
                raise OSError(
                    errno.ENOSPC, "the disk is full; make room and call again: what is finished is kept", str(self.path)
                ) from error
            raise UnreadableFileError(
                f"{self.path} is no landscape database, or is damaged ({text[:160]}); give another file, or put a copy there"
            ) from error


def duckdb_module(wanted_by: str) -> ModuleType:
    """DuckDB, imported when it is asked for; ImportError says how to get it."""
    try:
        import duckdb
    except ImportError as error:
        raise ImportError(f"{wanted_by} needs duckdb: pip install 'taskshift[writer]'") from error
    return duckdb
