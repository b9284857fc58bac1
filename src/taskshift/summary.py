"""A run in numbers: the record read back, and a row a task."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from taskshift import run_folder
from taskshift.divergence import ADVICE
from taskshift.faults import Fault
from taskshift.intact import write_text
from taskshift.run_folder import RunFolder

Row = Mapping[str, float]

COLUMNS = {
    "loss": "task_last_epoch_loss",
    "accuracy": "task_last_epoch_accuracy",
    "test_loss": "plasticity/test_loss",
    "test_accuracy": "plasticity/test_accuracy",
    "top_eigenvalue": "spectrum/top_eigenvalue_1",
    "top_residual": "spectrum/top_residual_1",
    "trace": "spectrum/trace",
    "trace_standard_error": "spectrum/trace_standard_error",
    "sharpness": "sam/sharpness",
    "approximate_rank": "rank/approximate_rank",
    "dormant_fraction": "units/dormant_fraction",
    "seconds": "task/seconds",
}
"""Column of the table → its name in the record."""

FIRST_SHOWN, LAST_SHOWN = 3, 20
PICTURES = ("learning.png", "planes.png", "plasticity.png", "curvature.png")
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


def plane_folders(folder: Path) -> dict[tuple[str, int], Path]:
    """(kind, task) → the folder of that whole grid, measured at the task's end; `sam` is a kind too."""
    found = {}
    for meta in sorted([*folder.glob("task_*/planes/*/meta.json"), *folder.glob("task_*/sam/meta.json")]):
        at = meta.parent.relative_to(folder).parts
        task = re.match(r"task_(\d+)_", at[0])
        if task and (meta.parent / "grid.npy").exists():
            found[at[-1], int(task[1])] = meta.parent
    return found


def summary_table(rows: Iterable[Row]) -> list[dict[str, float | None]]:
    """A row for each task that has ended: `task`, and `COLUMNS`, None where the record lacks them."""
    return [
        {"task": task} | {column: found.get(name) for column, name in COLUMNS.items()}
        for task, found in sorted(by_task(rows).items())
        if "task_last_epoch_loss" in found
    ]


def write_summary_table(folder: Path) -> Path:
    """Write summary/summary_table.json anew; return where."""
    path = Path(folder) / "summary" / "summary_table.json"
    write_text(path, json.dumps(summary_table(read_rows(folder)), indent=2) + "\n")
    return path


def print_table(folder: Path, console: Console) -> None:
    """Print a run's table, the first and the last tasks of a long run, and the two pictures to open first."""
    table = summary_table(read_rows(folder))
    if table:
        rich = _as_rich(table)
        rich.width = Measurement.get(console, console.options.update(width=1000), rich).maximum
        console.print(rich, crop=False)  # a narrow terminal may break lines, but no number is cut
    if diverged := RunFolder(Path(folder), arch="").diverged():
        console.print(f"{diverged}: {ADVICE}", soft_wrap=True, highlight=False, markup=False)
        return
    pictures = [path for name in PICTURES if (path := Path(folder) / "summary" / name).exists()][:2]
    if pictures:
        console.print("open first:")
    for path in pictures:
        console.print(f"  {path}", soft_wrap=True, highlight=False, markup=False)


def _as_rich(table: Sequence[Mapping[str, float | None]]) -> Table:
    """The rows to show in words, without the columns that no task fills."""
    words = {title: cell for title, needed, cell in _CELLS if any(row[needed] is not None for row in table)}
    rich = Table(title="at each task's end", title_justify="left", box=None, padding=(0, 1, 0, 0))
    for title in words:
        rich.add_column(title, justify="right", no_wrap=True)
    last = max(FIRST_SHOWN, len(table) - LAST_SHOWN)
    for row in table[:FIRST_SHOWN]:
        rich.add_row(*(cell(row) for cell in words.values()))
    if last > FIRST_SHOWN:
        rich.add_row(*("…" for _ in words))
    for row in table[last:]:
        rich.add_row(*(cell(row) for cell in words.values()))
    return rich


Cell = Callable[[Mapping[str, float | None]], str]
"""What stands in a row."""


def _number(column: str, digits: int = 3) -> Cell:
    return lambda row: "–" if row[column] is None else _short(row[column], digits)


def _percent(column: str) -> Cell:
    return lambda row: "–" if row[column] is None else f"{100 * row[column]:.1f}%"


def _with_error(column: str, error: str, form: str) -> Cell:
    """A value and its error in the words of `form`, or the value alone."""
    value = _number(column, digits=4)
    return lambda row: value(row) if row[error] is None else form.format(value(row), _short(row[error], 2))


def _short(number: float, digits: int) -> str:
    """A number in so many digits, without an exponent where its whole part fits in six places."""
    return f"{number:.0f}" if 10**digits <= abs(number) < 1e6 else f"{number:.{digits}g}"


_CELLS: tuple[tuple[str, str, Cell], ...] = (
    ("\ntask", "task", lambda row: f"{row['task']}"),
    ("\nloss", "loss", _number("loss")),
    ("\naccuracy", "accuracy", _percent("accuracy")),
    ("test\naccuracy", "test_accuracy", _percent("test_accuracy")),
    ("λ₁\n(residual)", "top_eigenvalue", _with_error("top_eigenvalue", "top_residual", "{} ({})")),
    ("trace\n± error", "trace", _with_error("trace", "trace_standard_error", "{} ± {}")),
    ("sharp-\nness", "sharpness", _number("sharpness")),
    ("approx.\nrank", "approximate_rank", _number("approximate_rank")),
    ("dormant\nunits", "dormant_fraction", _percent("dormant_fraction")),
    ("\nseconds", "seconds", _number("seconds")),
)
"""Title, the column that must have a value in some row, and the words."""
