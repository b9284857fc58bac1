"""A sweep's folder: which runs it has, and where each of them writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taskshift.faults import Fault
from taskshift.intact import read_json, write_json
from taskshift.run_folder import held

Entry = Mapping[str, Any]
"""What sweep.json says of a run: overrides, label, job, cluster, submitted."""


class SweepFolder:
    """Where the runs of one sweep lie, each in a folder named by its key. Making the object touches no disk."""

    def __init__(self, path: Path):
        self.path = Path(path)

    @property
    def file(self) -> Path:
        """What the launcher wrote of the sweep and its runs."""
        return self.path / "sweep.json"

    @property
    def submitted(self) -> Path:
        """Where submitit keeps what it hands to workers, and what they print."""
        return self.path / ".submitit"

    @property
    def code(self) -> Path:
        """A copy of the packages as they were when the sweep began, where one was asked for."""
        return self.path / "code"

    def run_folder(self, key: str) -> Path:
        return self.path / key

    def read(self) -> dict[str, Any]:
        """sweep.json; raises Fault where there is none."""
        if not self.file.exists():
            raise Fault(f"{self.path} is no sweep's folder: there is no sweep.json in it")
        return read_json(self.file, "put a copy of it back, or give another sweep_name")

    def runs(self) -> dict[str, Entry]:
        """Key → what is known of the run, in the order in which the sweep got them."""
        return self.read()["runs"]

    def write(self, about: Mapping[str, Any]) -> None:
        """Write sweep.json anew; only who holds the lock does."""
        write_json(self.file, about)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder if need be and hold it; a second launcher is refused."""
        with held(self.path, "look at it by taskshift status"):
            yield
