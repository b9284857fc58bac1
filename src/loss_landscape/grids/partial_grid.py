"""A grid that is not finished yet, on disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from loss_landscape.files import write_whole
from loss_landscape.surface.strategy import EvaluationStrategy

SECONDS_BETWEEN_SAVES = 2.0


@dataclass(eq=False)
class PartialGrid:
    """The values of finished chunks, and the path they were computed by, kept in `file` (None: nowhere).

    A chunk is `path.chunk` cells that follow each other in `order`; the last one may be shorter.
    """

    file: Path | None
    identity: str  # read where there is a file
    order: np.ndarray  # [cells], the cells in the order in which they are evaluated
    values: np.ndarray  # [cells], float64, in the grid's own order
    path: EvaluationStrategy | None = None  # None: not chosen yet
    done: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))  # [chunks]
    seconds_before: float = 0.0  # spent on it by interrupted calls

    def __post_init__(self) -> None:
        self._began = self._saved = time.monotonic()

    @classmethod
    def opened(cls, file: str | Path | None, identity: Sequence[bytes], order: np.ndarray) -> PartialGrid:
        """What `file` holds of the grid of this identity, with the path it holds; else nothing yet, and no path."""
        values = np.full(len(order), np.nan)
        if file is None:
            return cls(None, "", order, values)
        digest = hashlib.blake2b(b"".join([*identity, order.tobytes()]), digest_size=16).hexdigest()
        store = cls(Path(file), digest, order, values)
        store.seconds_before = store.absorb(store.file)
        return store

    def absorb(self, file: Path) -> float:
        """Take over the finished chunks that `file` holds of this grid by this path; the seconds they took."""
        if not file.exists():
            return 0.0
        with np.load(file) as stored:
            header, values, done = json.loads(str(stored["header"])), stored["values"], stored["done"]
        if header["identity"] != self.identity:
            return 0.0
        path = EvaluationStrategy(**header["strategy"])
        if self.path is None:
            self.begin(path)
        if path != self.path:
            return 0.0
        for chunk in np.nonzero(done & ~self.done)[0].tolist():
            self.values[self.cells_of(chunk)] = values[self.cells_of(chunk)]
        self.done |= done
        return header["seconds"]

    def begin(self, path: EvaluationStrategy) -> None:
        """Start, or start again, by this path: nothing is finished."""
        self.path = path
        self.values[:] = np.nan
        self.done = np.zeros(-(-len(self.order) // path.chunk), dtype=bool)

    @property
    def seconds(self) -> float:
        """Spent on the grid until now."""
        return self.seconds_before + time.monotonic() - self._began

    def missing(self, count: int) -> list[int]:
        """The chunks that the first `count` cells of the order lie in and that are not finished."""
        return np.nonzero(~self.done[: -(-count // self.path.chunk)])[0].tolist()

    def covered(self, count: int) -> np.ndarray:
        """Which cells lie in the chunks of the first `count` cells of the order, [cells] bool, in the grid's own order."""
        mask = np.zeros(len(self.order), dtype=bool)
        mask[self.order[: -(-count // self.path.chunk) * self.path.chunk]] = True
        return mask

    def finished(self) -> np.ndarray:
        """Which cells lie in finished chunks, [cells] bool, in the grid's own order."""
        mask = np.zeros(len(self.order), dtype=bool)
        mask[self.order] = np.repeat(self.done, self.path.chunk)[: len(self.order)]
        return mask

    def cells_of(self, chunk: int) -> np.ndarray:
        """The cells of a chunk."""
        return self.order[chunk * self.path.chunk : (chunk + 1) * self.path.chunk]

    def put(self, chunk: int, values: np.ndarray) -> None:
        """A chunk is finished."""
        self.values[self.cells_of(chunk)] = values
        self.done[chunk] = True
        if time.monotonic() - self._saved > SECONDS_BETWEEN_SAVES:
            self.save()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Inside, what is finished is saved when something stops the work."""
        try:
            yield
        except BaseException:
            self.save()
            raise

    def save(self) -> None:
        """Write what is finished, where there is a file and a path."""
        if self.file is None or self.path is None:
            return
        header = json.dumps({"identity": self.identity, "strategy": asdict(self.path), "seconds": self.seconds})

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez(file, values=self.values, done=self.done, header=np.array(header))

        write_whole(self.file, write)
        self._saved = time.monotonic()
