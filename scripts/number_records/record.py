"""A record: arrays, words and seconds by name, in files of one folder; and how two of them differ."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

EXPECTED = (ValueError, RuntimeError, NotImplementedError)  # what a net that an analysis is not for ends in


@dataclass
class Record:
    """What one net gave: numbers as arrays, everything else as words, and how long each entry took."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def take(self, name: str, compute: Callable[[], Any], parts: Callable[[Any], Any] | None = None) -> Any:
        """What `compute` gives, kept under `name` (or `parts` of it); where it is refused, None, and the error is kept."""
        started = time.perf_counter()
        try:
            result = compute()
        except EXPECTED as error:
            self.words[f"{name}/error"] = f"{type(error).__name__}: {error}"
            return None
        self.seconds[name] = time.perf_counter() - started
        for place, leaf in leaves(result if parts is None else parts(result), name):
            if isinstance(leaf, np.ndarray):
                self.arrays[place] = leaf
            else:
                self.words[place] = leaf
        return result

    def save(self, folder: Path, name: str) -> None:
        """Write NAME.npz, NAME.words.json and NAME.seconds.json."""
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / f"{name}.npz", **self.arrays)
        (folder / f"{name}.words.json").write_text(json.dumps(self.words, indent=1, sort_keys=True) + "\n")
        (folder / f"{name}.seconds.json").write_text(json.dumps(self.seconds, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path, name: str) -> Record:
        """The arrays and words that `save` wrote."""
        with np.load(folder / f"{name}.npz") as arrays:
            return cls(dict(arrays), json.loads((folder / f"{name}.words.json").read_text()))


def leaves(node: Any, name: str) -> Iterator[tuple[str, np.ndarray | str]]:
    """Every array and every word in a result, with its place."""
    if isinstance(node, Tensor):
        yield name, node.detach().cpu().numpy()
    elif isinstance(node, np.ndarray | np.generic | bool | int | float):
        yield name, np.asarray(node)
    elif dataclasses.is_dataclass(node):
        for one in dataclasses.fields(node):
            yield from leaves(getattr(node, one.name), f"{name}/{one.name}")
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from leaves(value, f"{name}/{key}")
    elif isinstance(node, list | tuple):
        yield from _of_sequence(node, name)
    else:
        yield name, str(node)


def _of_sequence(node: list[Any] | tuple[Any, ...], name: str) -> Iterator[tuple[str, np.ndarray | str]]:
    if node and all(isinstance(item, bool | int | float) for item in node):
        yield name, np.asarray(node)
    elif all(isinstance(item, str) for item in node):
        yield name, ", ".join(node)
    else:
        for number, item in enumerate(node):
            yield from leaves(item, f"{name}/{number}")


@dataclass
class Differences:
    """What two folders of records don't share; `numbers` and `lost` are faults, the rest may be meant."""

    num_compared: int = 0
    numbers: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)  # only in the first
    added: list[str] = field(default_factory=list)  # only in the second
    words: list[str] = field(default_factory=list)

    @property
    def are_faults(self) -> bool:
        """Whether a number changed or is missing, or there was none."""
        return bool(self.numbers or self.lost or not self.num_compared)

    def add(self, name: str, one: Record, other: Record) -> None:
        """Count in two records of the same net."""
        self.lost += [f"{name}: {place}" for place in one.arrays.keys() - other.arrays.keys()]
        self.added += [f"{name}: {place}" for place in other.arrays.keys() - one.arrays.keys()]
        for place in one.arrays.keys() & other.arrays.keys():
            self.num_compared += 1
            if (what := difference(one.arrays[place], other.arrays[place])) is not None:
                self.numbers.append(f"{name}: {place}: {what}")
        for place in one.words.keys() | other.words.keys():
            pair = one.words.get(place), other.words.get(place)
            if pair[0] != pair[1]:
                self.words.append(f"{name}: {place}: {pair[0]!r} → {pair[1]!r}")

    def report(self) -> str:
        """All of it in lines, under headings; what is alike but for its place is one line."""
        lines = [f"other numbers: {len(self.numbers)}", *sorted(self.numbers), ""] if self.numbers else []
        for heading, found in {
            "only in the first": self.lost,
            "only in the second": self.added,
            "other words": self.words,
        }.items():
            if found:
                lines += [f"{heading}: {len(found)}", *_by_kind(found), ""]
        same = self.num_compared - len(self.numbers)
        return "\n".join([*lines, f"{same} of {self.num_compared} arrays have the same bits, {len(self.lost)} are missing"])


def _by_kind(found: list[str]) -> list[str]:
    """How many there are of each kind, and the first of it; a kind is a change of words, or a fact of whatever result."""
    kinds: dict[str, list[str]] = {}
    for line in sorted(found):
        change, fact = line.partition(": ")[2].partition(": ")[2], re.sub(r"\d+", "#", line.rpartition("/facts/")[2])
        kinds.setdefault(change or fact, []).append(line)
    return [f"{len(lines)} × {lines[0]}" for lines in kinds.values()]


def difference(one: np.ndarray, other: np.ndarray) -> str | None:
    """In what two arrays differ, by dtype, shape and bytes (so that NaN is NaN, and -0.0 is not 0.0); None where they don't."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return f"{one.dtype} {list(one.shape)} became {other.dtype} {list(other.shape)}"
    if one.tobytes() == other.tobytes():
        return None
    width = one.dtype.itemsize
    bits = (np.ascontiguousarray(array).reshape(-1).view(f"V{width}") for array in (one, other))
    places = [place for place, pair in enumerate(zip(*bits, strict=True)) if pair[0].tobytes() != pair[1].tobytes()]
    first = one.reshape(-1)[places[0]], other.reshape(-1)[places[0]]
    return f"{len(places)} of {one.size} entries, the first {first[0]!r} → {first[1]!r}"


def compared(first: Path, second: Path) -> Differences:
    """The differences of two folders of records."""
    found = Differences()
    names = [{path.stem for path in folder.glob("*.npz")} for folder in (first, second)]
    found.lost += [f"{name}: all of it" for name in names[0] - names[1]]
    found.added += [f"{name}: all of it" for name in names[1] - names[0]]
    for name in sorted(names[0] & names[1]):
        found.add(name, Record.load(first, name), Record.load(second, name))
    return found
