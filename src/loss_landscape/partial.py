"""A grid that is not finished yet, on disk."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from loss_landscape.results import write_whole
from loss_landscape.surface import GridPath

SECONDS_BETWEEN_SAVES = 2.0


@dataclass(eq=False)
class PartialGrid:
    """The values of finished chunks, and the path they were computed by, kept in `file` (None: nowhere)."""

    file: Path | None
    identity: str
    path: GridPath
    values: np.ndarray  # [cells], float64
    done: np.ndarray  # [chunks], bool
    seconds: float = 0.0  # spent on it before

    @classmethod
    def opened(
        cls, file: str | Path | None, identity: Sequence[bytes], num_cells: int, path: Callable[[], GridPath]
    ) -> PartialGrid:
        """What `file` holds of the grid of this identity, with the path it holds; else nothing yet, by `path()`."""
        digest = hashlib.blake2b(b"".join(identity), digest_size=16).hexdigest()
        file = None if file is None else Path(file)
        if file is not None and file.exists():
            with np.load(file) as stored:
                header = json.loads(str(stored["header"]))
                if header["identity"] == digest:
                    path_before = GridPath(**header["path"])
                    return cls(file, digest, path_before, stored["values"], stored["done"], header["seconds"])
        chosen = path()
        return cls(file, digest, chosen, np.full(num_cells, np.nan), np.zeros(-(-num_cells // chosen.chunk), dtype=bool))

    def filled(self, evaluate: Callable[[slice, GridPath], np.ndarray]) -> np.ndarray:
        """All values, the missing chunks by `evaluate(cells, path)`; what is finished is kept whatever stops it."""
        began = saved = time.monotonic()
        try:
            for index in np.nonzero(~self.done)[0].tolist():
                cells = slice(index * self.path.chunk, (index + 1) * self.path.chunk)
                self.values[cells] = evaluate(cells, self.path)
                self.done[index] = True
                if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                    self._save(self.seconds + time.monotonic() - began)
                    saved = time.monotonic()
        except BaseException:
            self._save(self.seconds + time.monotonic() - began)
            raise
        return self.values.copy()

    def discard(self) -> None:
        """The grid is finished: remove the file."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)

    def _save(self, seconds: float) -> None:
        if self.file is None:
            return
        header = json.dumps({"identity": self.identity, "path": asdict(self.path), "seconds": seconds})
        self.file.parent.mkdir(parents=True, exist_ok=True)

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez(file, values=self.values, done=self.done, header=np.array(header))

        write_whole(self.file, write)
