"""Files that appear whole or not at all, and arrays in them."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


class UnreadableFileError(ValueError):
    """A file of ours that is damaged, or was written by something else."""


DAMAGED = (KeyError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile)
"""What NumPy and json raise for a file that is cut off, or is another."""

FACTS = "facts"  # the name, among a file's arrays, of what is no array


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place at once, safe from a crash; makes the folder if need be."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give a file in it")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".partial.{path.name}")  # the suffix stays: np.save and matplotlib look at it
    write(beside)
    sync_file(beside)
    beside.replace(path)
    sync_folder(path.parent)


def require_place(path: Path, *, such_as: str) -> None:
    """Make the folder of `path`; OSError, as a sentence, where no file can be written there, `such_as` being a file's name."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give a file in it, such as {path / such_as}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(f"{path} can't be made, since a file stands in the place of one of its folders") from error
    except OSError as error:
        raise OSError(error.errno, f"can't be written ({error.strerror}); name another place", str(path)) from error


def write_first(path: Path, write: Callable[[Path], Any]) -> None:
    """The same where there is no file at `path` yet; of several processes that try, one succeeds, and the others' files go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".partial.{uuid.uuid4().hex}.{path.name}")
    write(beside)
    sync_file(beside)
    try:
        os.link(beside, path)  # fails where the file is there already, unlike a rename
    except FileExistsError:
        pass
    except OSError:  # a file system without links: the last one holds
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Put a file's content onto the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Put a folder's list of names onto the disk: a file that was renamed there is then found there after a crash."""
    if os.name == "nt":  # which opens no folders
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has no such thing
            raise
    finally:
        os.close(number)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    """Write arrays by name, and `facts` as JSON, into one .npz file, whatever the suffix of `path`."""
    with path.open("wb") as file:
        np.savez(file, **{FACTS: np.array(json.dumps(facts)), **arrays})  # type: ignore[arg-type]


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and facts that `write_arrays` wrote; UnreadableFileError where `path` holds something else."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        facts = json.loads(str(arrays.pop(FACTS)))
    except DAMAGED as error:
        raise UnreadableFileError(f"{path} holds no arrays that this version wrote; remove it, or give another file") from error
    return arrays, facts
