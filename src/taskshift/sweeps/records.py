"""What the runs of sweeps logged so far, and what tells them apart."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskshift.config.words import either
from taskshift.faults import Fault
from taskshift.intact import read_json
from taskshift.run_folder import read_rows
from taskshift.sweeps.sweep_folder import SweepFolder

Value = bool | int | float | str | None
Row = Mapping[str, float]

PLACE = ("global_epoch", "task_idx")
"""What every row has: when it was written."""


@dataclass(frozen=True)
class Record:
    """A run of a sweep. Its rows are read when they are asked for, as far as they are written."""

    sweep: str
    key: str
    label: str
    folder: Path
    overrides: Mapping[str, Value]  # swept key → value; None where this run's sweep does not sweep it
    seed: int | None

    def rows(self, metric: str | None = None) -> list[dict[str, float]]:
        """Every row; or, of the rows that carry `metric`, that and their place."""
        if metric is None:
            return read_rows(self.folder)
        rows = read_rows(self.folder, mentioning=json.dumps(metric))
        return [{name: row[name] for name in (*PLACE, metric)} for row in rows if metric in row]


def read_sweeps(paths: Iterable[Path]) -> list[Record]:
    """Every run of the sweeps in these folders; raises Fault for a folder that holds no sweep."""
    return records_of(distinct_sweeps(paths))


def distinct_sweeps(paths: Iterable[Path]) -> list[SweepFolder]:
    """The sweeps in these folders, each once."""
    return [SweepFolder(path) for path in {path.resolve(): path for path in paths}.values()]


def records_of(sweeps: Iterable[SweepFolder]) -> list[Record]:
    """Every run of these sweeps, in their order; an override has one type over all of them."""
    folders = list(sweeps)
    names = _distinct_names(folders)
    found = [(names[sweep.path], sweep, key, entry) for sweep in folders for key, entry in sweep.runs().items()]
    swept = sorted({name for *_, entry in found for name in entry["overrides"]})
    columns = {name: typed([entry["overrides"].get(name) for *_, entry in found]) for name in swept}
    return [
        _record(name, sweep.run_folder(key), key, entry["label"], {column: columns[column][number] for column in swept})
        for number, (name, sweep, key, entry) in enumerate(found)
    ]


def typed(texts: Sequence[str | None]) -> list[Value]:
    """A column of overrides as whole numbers, numbers or truths where all of it reads so, else as text; null is None."""
    given = [text for text in texts if text not in (None, "null")]
    read = next(kind for kind in (int, float, _truth, str) if all(_reads(kind, text) for text in given))
    return [None if text in (None, "null") else read(text) for text in texts]


def require_override(records: Sequence[Record], key: str) -> None:
    """Raise Fault where the runs differ in no override of that name."""
    known = sorted(records[0].overrides) if records else []
    if key not in known:
        near = difflib.get_close_matches(key, known, 1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise Fault(f"{key}: no override that this sweep varies; {meant}it varies {either(known) if known else 'nothing'}")


def in_order(value: Value) -> tuple[int, Any]:
    """A key for sorting: what is absent, then numbers by size, then words."""
    if value is None:
        return 0, 0
    return (1, value) if isinstance(value, (bool, int, float)) else (2, value)


def unknown_metric(records: Iterable[Record], metric: str) -> Fault:
    """The fault of asking for a metric that no run has logged so far."""
    names = _logged_names(records)
    if not names:
        return Fault(f"{metric}: no run of this sweep has logged anything yet; `taskshift status` says where they are")
    near = difflib.get_close_matches(metric, names, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    return Fault(f"{metric}: no run has logged such a metric yet; {meant}they logged {_listed(names)}")


def no_metric(records: Iterable[Record]) -> Fault:
    """The fault of asking for no metric at all."""
    names = _logged_names(records)
    return Fault(f"--y: expected a metric; these runs logged {_listed(names) if names else 'nothing yet'}")


def shown_value(value: Value) -> str:
    """A value of an override as one would write it."""
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def runs_in_words(count: int) -> str:
    """`1 run`, `5 runs`."""
    return f"{count} run" if count == 1 else f"{count} runs"


def _record(sweep: str, folder: Path, key: str, label: str, overrides: Mapping[str, Value]) -> Record:
    about = folder / "run.json"
    seed = overrides.get("seed")
    if seed is None and about.exists():
        seed = read_json(about)["seed"]
    return Record(sweep, key, label, folder, overrides, seed)


def _distinct_names(sweeps: Sequence[SweepFolder]) -> dict[Path, str]:
    """Each sweep's folder → its name, or its whole path where two have one name."""
    names = [sweep.path.resolve().name for sweep in sweeps]
    return {sweep.path: name if names.count(name) == 1 else str(sweep.path) for sweep, name in zip(sweeps, names, strict=True)}


def _logged_names(records: Iterable[Record]) -> list[str]:
    return sorted({name for record in records for row in record.rows() for name in row if name not in PLACE})


def _listed(names: Sequence[str]) -> str:
    """The names in a line; those of single layers and planes are many, and only counted."""
    few = [name for name in names if name.removeprefix("start/").count("/") < 2]
    rest = len(names) - len(few)
    return ", ".join(few) + (f" and {rest} of single layers or planes" if rest else "")


def _truth(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _reads(kind: Callable[[str], Value], text: str) -> bool:
    try:
        kind(text)
    except (ValueError, KeyError):
        return False
    return True
