"""Are two run folders the same run, bit for bit? Timings and memory apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from taskshift import checkpoint
from taskshift.intact import read_any_json
from taskshift.run_folder import PAGE, RunFolder, read_rows

TIMED = ("seconds", "memory_mb", "opt_seconds")
"""The last part of a name that says how long or how much, which no two runs share."""

ATTEMPT = ("partial", "latest.pt", "train.log", "run.json", "measure.json", "config.yaml", "quantities.json", PAGE)
"""Files that tell of the attempts, show the run, or are compared by their own rules."""

BESIDE = ("wandb", "summary", "measured", "jobs")
"""Folders that are no part of the run: they mirror it, draw it, measure it again, or were given to a scheduler."""


def differences(one: Path, other: Path) -> list[str]:
    """Every difference between two run folders, a sentence each; empty where they are equal.

    Compared: the record row by row, arrays and numbers of every evaluator byte by byte, checkpoints tensor by tensor.
    """
    return [*_row_differences(one, other), *_file_differences(one, other), *_latest_differences(one, other)]


def _row_differences(one: Path, other: Path) -> Iterator[str]:
    rows, others = read_rows(one), read_rows(other)
    if len(rows) != len(others):
        yield f"metrics.jsonl: {len(rows)} and {len(others)} rows"
    for number, (row, twin) in enumerate(zip(rows, others, strict=False)):
        for name in dict.fromkeys([*row, *twin]):
            if not _is_timed(name) and not _same(row.get(name), twin.get(name)):
                yield f"metrics.jsonl row {number}: {name} is {row.get(name)} and {twin.get(name)}"


def _file_differences(one: Path, other: Path) -> Iterator[str]:
    files, others = _files(one), _files(other)
    yield from (f"{name}: only in one of them" for name in sorted(files ^ others))
    for name in sorted(files & others):
        if (difference := _COMPARED.get(Path(name).suffix, _no_difference)(one / name, other / name)) is not None:
            yield f"{name}: {difference}"


def _latest_differences(one: Path, other: Path) -> Iterator[str]:
    paths = [RunFolder(path, "").latest for path in (one, other)]
    if not all(path.exists() for path in paths):
        if any(path.exists() for path in paths):
            yield "checkpoints/latest.pt: only in one of them"
        return
    states = [checkpoint.load(path) for path in paths]
    for state in states:
        del state["task_seconds"], state["rows_checksum"]  # the rows' timings are in their checksum
    if (at := checkpoint.first_difference(*states)) is not None:
        yield f"checkpoints/latest.pt: {at}"


def _files(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix in _COMPARED and path.name not in ATTEMPT)
    names = (path.relative_to(folder) for path in paths)
    return {str(name) for name in names if name.parts[0] not in BESIDE}


def _tensor_difference(one: Path, other: Path) -> str | None:
    return checkpoint.first_difference(_without_timings(checkpoint.load(one)), _without_timings(checkpoint.load(other)))


def _array_difference(one: Path, other: Path) -> str | None:
    return None if np.load(one).tobytes() == np.load(other).tobytes() else "other values"


def _json_difference(one: Path, other: Path) -> str | None:
    return checkpoint.first_difference(*(_without_timings(read_any_json(path)) for path in (one, other)))


def _text_difference(one: Path, other: Path) -> str | None:
    return None if one.read_bytes() == other.read_bytes() else "other text"


def _no_difference(one: Path, other: Path) -> None:
    return None


_COMPARED = {
    ".pt": _tensor_difference,
    ".npy": _array_difference,
    ".json": _json_difference,
    ".csv": _text_difference,
}


def _without_timings(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _without_timings(value) for key, value in node.items() if not _is_timed(str(key))}
    return [_without_timings(value) for value in node] if isinstance(node, list) else node


def _is_timed(name: str) -> bool:
    return name.rpartition("/")[2] in TIMED


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return one == other or (math.isnan(one) and math.isnan(other))
