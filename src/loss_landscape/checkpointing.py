"""Long work that goes on where it was: options for it, and the file that keeps what is finished."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from loss_landscape.files import UnreadableFileError, read_arrays, write_arrays, write_whole
from loss_landscape.shards import Shard, shard_files

SECONDS_BETWEEN_SAVES = 2.0

Progress = Callable[[float, float], None]
"""(fraction done, seconds left)."""


@dataclass(frozen=True)
class Checkpointing:
    """How long work is kept, divided, watched and limited.

    `file` keeps what is finished: interrupted and called again with the same file, the work goes on where it was, with the same
    bits. It is removed when a grid or a curve is whole. A file that holds other work of this kind is replaced; one that holds
    anything else raises ValueError. `shard` is the part of the work to do, kept beside `file`. `progress(fraction, seconds_left)`
    is called as parts are finished. Work that would take more than `max_hours` in all, earlier calls included, raises
    TimeoutError, and what is finished stays.

    >>> Checkpointing("plane.npz", shard=Shard(0, 2)).own_file
    PosixPath('plane.shard_0_of_2.npz')
    """

    file: str | Path | None = None
    shard: Shard | None = None
    progress: Progress | None = None
    max_hours: float | None = None

    def __post_init__(self) -> None:
        if self.file is not None and Path(self.file).is_dir():
            raise IsADirectoryError(f"{self.file} is a folder; give a file in it, such as {Path(self.file, 'unfinished.npz')}")
        if self.progress is not None and not callable(self.progress):
            raise TypeError(f"progress is called as progress(fraction, seconds_left), and {self.progress!r} can't be")
        if self.max_hours is not None and not self.max_hours > 0:
            raise ValueError(f"max_hours must be None or > 0, got {self.max_hours}")
        if self.shard is not None and self.file is None:
            raise ValueError("a shard keeps its part beside a file that all shards name: give file as well")

    @property
    def own_file(self) -> Path | None:
        """Where this call keeps what it finishes: `file`, or the shard's file beside it."""
        if self.file is None:
            return None
        return Path(self.file) if self.shard is None else self.shard.beside(Path(self.file))

    @property
    def known_files(self) -> list[Path]:
        """What may hold finished parts of the same work: `file`, and those of shards beside it."""
        return [] if self.file is None else [Path(self.file), *shard_files(Path(self.file))]


def require_options(given: Checkpointing, *heeded: str, by: str) -> None:
    """TypeError for what is no `Checkpointing`, ValueError where it has a field that the function `by` does not heed."""
    if not isinstance(given, Checkpointing):
        raise TypeError(f"expected checkpointing=Checkpointing(file), with options of how long work is kept, got {given!r}")
    unheeded = [each.name for each in fields(given) if each.name not in heeded and getattr(given, each.name) is not None]
    if unheeded:
        raise ValueError(f"{by} heeds {' and '.join(heeded)} of checkpointing; leave out {' and '.join(unheeded)}")


@dataclass(frozen=True, eq=False)
class Finished:
    """The finished part of some work: arrays by name, and facts that JSON can hold."""

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0  # that it took


class Resumable:
    """Keeps the finished part of some work in `file` (None: nowhere), for a later call of the same work to go on with.

    `kind` is what the work is on, such as "grid". `identity` gives tensors, arrays and words that no other work of this kind has
    all of; it is asked only where there is a file. `state` gives what is finished now, or None where nothing is.
    """

    def __init__(
        self,
        file: str | Path | None,
        identity: Callable[[], Iterable[Tensor | np.ndarray | str]],
        state: Callable[[], Finished | None],
        *,
        kind: str,
    ):
        self.file = None if file is None else Path(file)
        self._kind = kind
        self.seconds_before = 0.0  # spent by interrupted calls
        self._identity = "" if file is None else digest(identity())
        self._state = state
        self._began = self._saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """Spent on the work until now, by earlier calls too."""
        return self.seconds_before + time.monotonic() - self._began

    def load(self, file: Path | None = None) -> Finished | None:
        """What `file` (its own unless given) holds of this very work; None where nothing, ValueError where it is another kind."""
        file = file or self.file
        if self.file is None or file is None or not file.exists():
            return None
        arrays, facts = read_arrays(file)
        if facts.get("kind") != self._kind:
            held = f"an unfinished {facts['kind']}" if "kind" in facts else facts.get("result", "something else")
            raise UnreadableFileError(f"{file} holds {held}, not an unfinished {self._kind}; give another file")
        return Finished(arrays, facts["state"], facts["seconds"]) if facts["identity"] == self._identity else None

    def save(self) -> None:
        """Write what is finished, where there is a file and anything is."""
        finished = None if self.file is None else self._state()
        if self.file is None or finished is None:
            return
        facts = {"kind": self._kind, "identity": self._identity, "seconds": self.seconds, "state": finished.facts}
        write_whole(self.file, partial(write_arrays, arrays=finished.arrays, facts=facts))
        self._saved = time.monotonic()

    def save_by_the_clock(self) -> None:
        """The same, unless it was done just now."""
        if time.monotonic() - self._saved > SECONDS_BETWEEN_SAVES:
            self.save()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Inside, what is finished is saved when anything stops the work."""
        try:
            yield
        except BaseException:
            self.save()
            raise

    def remove(self) -> None:
        """Remove the file: the work is whole."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)


def digest(parts: Iterable[Tensor | np.ndarray | str]) -> str:
    """A fingerprint of tensors, arrays and words, by blake2b, 32 hexadecimal digits."""
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        content: bytes | memoryview = part.encode() if isinstance(part, str) else _bytes_of(part)
        hasher.update(len(content).to_bytes(8, "little"))
        hasher.update(content)
    return hasher.hexdigest()


def _bytes_of(part: Tensor | np.ndarray) -> memoryview:
    array = part.detach().cpu().numpy() if isinstance(part, Tensor) else part
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
