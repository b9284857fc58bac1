"""A run in numbers: the record read back, and a row a task."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from taskshift import run_folder
from taskshift.divergence import ADVICE
from taskshift.faults import Fault
from taskshift.intact import write_text
from taskshift.quantities import Quantities
from taskshift.run_folder import PAGE, RunFolder, read_quantities

Row = Mapping[str, float]

FIRST_SHOWN, LAST_SHOWN = 3, 20
PICTURES = ("summary/learning.png", "summary/planes.png", "summary/plasticity.png", "summary/curvature.png")
"""Those to open first, the most telling first."""


def read_rows(folder: Path) -> list[dict[str, float]]:
    """Every whole row of a run's record; a half-written last line is left out. Raises Fault where there is no record."""
    if not RunFolder(Path(folder), arch="").metrics.exists():
        raise Fault(f"{folder} holds no metrics.jsonl; give the folder of a run that has logged an epoch")
    return run_folder.read_rows(Path(folder))


def by_task(rows: Iterable[Row]) -> dict[int, dict[str, float]]:
    """Task → everything that was said of it, the last word where a name comes again."""
    tasks: dict[int, dict[str, float]] = {}
    for row in rows:
        tasks.setdefault(int(row["task_idx"]), {}).update(row)
    return tasks


def ended_tasks(rows: Iterable[Row]) -> dict[int, dict[str, float]]:
    """The same for the tasks that have ended, the first task first."""
    return {task: found for task, found in sorted(by_task(rows).items()) if "task_last_epoch_loss" in found}


def plane_folders(folder: Path, phase: Literal["start", "end"] = "end") -> dict[tuple[str, int], Path]:
    """(kind, task) → the folder of that whole grid, measured at the task's start or end; `sam` is a kind too."""
    found, below = {}, "task_*/start" if phase == "start" else "task_*"
    for meta in sorted([*folder.glob(f"{below}/planes/*/meta.json"), *folder.glob(f"{below}/sam/meta.json")]):
        at = meta.parent.relative_to(folder).parts
        task = re.match(r"task_(\d+)_", at[0])
        if task and (meta.parent / "grid.npy").exists():
            found[at[-1], int(task[1])] = meta.parent
    return found


def summary_table(rows: Iterable[Row], quantities: Quantities) -> list[dict[str, float | None]]:
    """A row for each task that has ended: `task`, and the columns that were declared, None where the record lacks them."""
    columns = columns_of(quantities)
    return [
        {"task": task} | {column.key: found.get(column.name) for column in columns} for task, found in ended_tasks(rows).items()
    ]


def write_summary_table(folder: Path) -> Path:
    """Write summary/summary_table.json anew; return where."""
    path = Path(folder) / "summary" / "summary_table.json"
    table = summary_table(read_rows(folder), read_quantities(Path(folder)))
    write_text(path, json.dumps(table, indent=2) + "\n")
    return path


def print_table(folder: Path, console: Console) -> None:
    """Print a run's table, the first and the last tasks of a long run, and the two files to open first."""
    tasks = ended_tasks(read_rows(folder))
    if tasks:
        rich = _as_rich(tasks, columns_of(read_quantities(Path(folder))))
        rich.width = Measurement.get(console, console.options.update(width=1000), rich).maximum
        console.print(rich, crop=False)  # a narrow terminal may break lines, but no number is cut
    if diverged := RunFolder(Path(folder), arch="").diverged():
        console.print(f"{diverged}: {ADVICE}", soft_wrap=True, highlight=False, markup=False)
        return
    shown = [path for name in (PAGE, *PICTURES) if (path := Path(folder) / name).exists()][:2]
    if shown:
        console.print("open first:")
    for path in shown:
        console.print(f"  {path}", soft_wrap=True, highlight=False, markup=False)


@dataclass(frozen=True)
class TableColumn:
    """A declared column, with what its cells are made of."""

    title: str | None
    key: str
    name: str
    error: str | None  # the name of what is printed beside it
    with_error: str | None  # how
    is_share: bool

    def cell(self, found: Row) -> str:
        """What stands in a task's row: the number, with its error where the column wants it and the record has it."""
        if self.name not in found:
            return "–"
        number = self._in_words(found[self.name], digits=3 if self.with_error is None else 4)
        if self.with_error is None or self.error not in found:
            return number
        return self.with_error.format(number, self._in_words(found[self.error], digits=2))

    def _in_words(self, number: float, digits: int) -> str:
        return f"{100 * number:.1f}%" if self.is_share else _short(number, digits)


def columns_of(quantities: Quantities) -> list[TableColumn]:
    """Every column, in the order in which they stand; a key that is taken gives way to the whole name."""
    declared = [(quantity, column) for quantity in quantities for column in quantity.columns]
    found: dict[str, TableColumn] = {}
    for quantity, column in sorted(declared, key=lambda one: one[1].place):
        name = column.name or quantity.pattern
        key = column.key if column.key is not None and column.key not in found else name
        is_share = quantities.unit(name, of_classes=True) == "share"
        found[key] = TableColumn(column.title, key, name, quantity.error_of(name), column.with_error, is_share)
    return list(found.values())


def _as_rich(tasks: Mapping[int, Row], columns: Sequence[TableColumn]) -> Table:
    """The rows to show in words, without the columns that no task fills."""
    shown = [one for one in columns if one.title is not None and any(one.name in found for found in tasks.values())]
    rich = Table(title="at each task's end", title_justify="left", box=None, padding=(0, 1, 0, 0))
    for title in ("task", *(column.title for column in shown)):
        rich.add_column(title, justify="right", no_wrap=True)
    rows = [(f"{task}", *(column.cell(found) for column in shown)) for task, found in tasks.items()]
    last = max(FIRST_SHOWN, len(rows) - LAST_SHOWN)
    for row in rows[:FIRST_SHOWN]:
        rich.add_row(*row)
    if last > FIRST_SHOWN:
        rich.add_row(*("…" for _ in range(len(shown) + 1)))
    for row in rows[last:]:
        rich.add_row(*row)
    return rich


def _short(number: float, digits: int) -> str:
    """A number in so many digits, without an exponent where its whole part fits in six places."""
    return f"{number:.0f}" if 10**digits <= abs(number) < 1e6 else f"{number:.{digits}g}"
