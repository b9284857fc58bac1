"""Every number that the runs of sweeps logged, as one long table; DuckDB writes it and answers questions about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table
from rich.text import Text

from taskshift.config.words import either
from taskshift.faults import Fault
from taskshift.sweeps.records import PLACE, Record, Value, distinct_sweeps, records_of, runs_in_words, shown_value
from taskshift.sweeps.states import states

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from rich.console import Console

WRITERS = {".parquet": "FORMAT parquet, COMPRESSION zstd", ".csv": "FORMAT csv, HEADER true"}
TYPES = {bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE", str: "VARCHAR"}
OWN = ("sweep", "run", "state", "seed", *PLACE, "metric", "value")
"""The columns that every table has; the swept overrides stand after `state`."""


def collect(paths: Sequence[Path], output: Path | None, query: str | None, force: bool, console: Console) -> None:
    """Write the table of the sweeps in `paths` to `output`, print what `query` gives, or, of neither, what there is.

    Raises Fault for a folder that holds no sweep, a query that cannot be answered, and a file that exists or cannot be written.
    """
    if output is not None:
        require_new(output, force)
    sweeps = distinct_sweeps(paths)
    records = records_of(sweeps)
    known = [state.state for sweep in sweeps for state in states(sweep).values()]
    with metrics_table(records, known) as connection:
        if output is not None:
            write_table(connection, output)
        if query is not None:
            print_answer(*answer(connection, query), console)
        if query is None or output is not None:
            print_size(connection, records, output, console)


@contextmanager
def metrics_table(records: Sequence[Record], known_states: Sequence[str]) -> Iterator[DuckDBPyConnection]:
    """A connection in which `metrics` is the table: a row for each number of each row of each run, as far as written.

    Columns: sweep, run (its key), state, one for each swept override, seed, global_epoch, task_idx, metric, value.
    """
    duckdb = _duckdb()
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        swept = [name for name in (records[0].overrides if records else ()) if name not in OWN]
        _create_runs(connection, records, known_states, swept)
        connection.execute("CREATE TABLE numbers (id BIGINT, global_epoch BIGINT, task_idx BIGINT, metric VARCHAR, value DOUBLE)")
        for number, record in enumerate(records):
            _insert_numbers(connection, number, record)
        columns = ["sweep", "run", "state", *map(quoted, swept), "seed", *PLACE, "metric", "value"]
        connection.execute(f"CREATE VIEW metrics AS SELECT {', '.join(columns)} FROM numbers JOIN runs USING (id)")
        yield connection


def require_new(path: Path, force: bool) -> None:
    """Raise Fault for a name that says no format, or whose file exists and may not be written over."""
    if path.suffix not in WRITERS:
        raise Fault(f"{path}: expected a file name that ends with {either(list(WRITERS))}")
    if path.exists() and not force:
        raise Fault(f"{path} exists; give another name, or --force to write over it")


def write_table(connection: DuckDBPyConnection, path: Path) -> None:
    """Write `metrics` to a Parquet or CSV file, whole or not at all."""
    beside = path.with_name(f".partial.{path.name}")
    ordered = "SELECT * FROM metrics ORDER BY sweep, run, global_epoch, task_idx, metric"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.touch()  # says why it cannot be written in fewer words than DuckDB
        connection.execute(f"COPY ({ordered}) TO {_text(str(beside))} ({WRITERS[path.suffix]})")
        beside.replace(path)
    except OSError as error:
        raise Fault(f"cannot write {path}: {error.strerror}; give another -o") from error


def answer(connection: DuckDBPyConnection, query: str) -> tuple[list[str], list[tuple]]:
    """The names of the columns and the rows of what a query on `metrics` gives; raises Fault for one that DuckDB refuses."""
    import duckdb

    try:
        result = connection.execute(query)
        return [column[0] for column in result.description or []], result.fetchall()
    except duckdb.Error as error:
        raise Fault(f"--query: {' '.join(str(error).split())}") from error


def print_answer(columns: Sequence[str], rows: Sequence[tuple], console: Console) -> None:
    """Print the answer to a query as a table."""
    table = Table(*columns, box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*("null" if cell is None else Text(shown_value(cell)) for cell in row))
    console.print(table)


def print_size(connection: DuckDBPyConnection, records: Sequence[Record], output: Path | None, console: Console) -> None:
    """Say how much the table holds, and how to ask it something."""
    rows, runs = connection.execute("SELECT count(*), count(DISTINCT (sweep, run)) FROM metrics").fetchone()
    where = f" in {output}" if output else ""
    silent = len(records) - runs
    rest = f"; {runs_in_words(silent)} logged nothing so far" if silent else ""
    console.print(f"{rows} rows of {runs_in_words(runs)}{where}{rest}", highlight=False, markup=False, soft_wrap=True)
    ended = connection.execute("SELECT min(metric) FROM numbers WHERE metric LIKE 'task_last_epoch_%'").fetchone()[0]
    if ended:
        query = example_query(_text(str(output)) if output else "metrics", records, ended)
        console.print(f"ask, with DuckDB or by --query: {query}", highlight=False, markup=False, soft_wrap=True)


def example_query(source: str, records: Sequence[Record], metric: str) -> str:
    """A query worth beginning with: the mean of a metric over seeds, for each task and whatever else was swept."""
    swept = [quoted(name) for name in records[0].overrides if name != "seed"]
    groups = ", ".join([*swept, "task_idx"])
    return f"SELECT {groups}, avg(value) FROM {source} WHERE metric = {_text(metric)} GROUP BY ALL ORDER BY ALL"


def quoted(name: str) -> str:
    """A column's name as SQL wants it: `"net.width"`."""
    escaped = name.replace('"', '""')
    return name if name.isidentifier() else f'"{escaped}"'


def _create_runs(connection: DuckDBPyConnection, records: Sequence[Record], known: Sequence[str], swept: Sequence[str]) -> None:
    """A row for each run, with an `id`."""
    typed_columns = [f"{quoted(name)} {_type([record.overrides[name] for record in records])}" for name in swept]
    columns = ["id BIGINT", "sweep VARCHAR", "run VARCHAR", "state VARCHAR", *typed_columns, "seed BIGINT"]
    connection.execute(f"CREATE TABLE runs ({', '.join(columns)})")
    for number, (record, state) in enumerate(zip(records, known, strict=True)):
        values = [number, record.sweep, record.key, state, *(record.overrides[name] for name in swept), record.seed]
        connection.execute(f"INSERT INTO runs VALUES ({', '.join('?' for _ in values)})", values)


def _insert_numbers(connection: DuckDBPyConnection, number: int, record: Record) -> None:
    """Every number of a run's record. DuckDB takes a NaN in an array for NULL, and no value here is NULL."""
    cells = [
        (row["global_epoch"], row["task_idx"], name, row[name]) for row in record.rows() for name in row if name not in PLACE
    ]
    if not cells:
        return
    epochs, tasks, names, values = zip(*cells, strict=True)
    arrays = {
        "global_epoch": np.array(epochs, dtype=np.int64),
        "task_idx": np.array(tasks, dtype=np.int64),
        "metric": np.array(names, dtype=object),
        "value": np.array(values, dtype=np.float64),
    }
    connection.register("arrays", arrays)
    columns = "global_epoch, task_idx, metric, coalesce(value, 'nan'::DOUBLE)"
    connection.execute(f"INSERT INTO numbers SELECT {number}, {columns} FROM arrays")
    connection.unregister("arrays")


def _type(values: Sequence[Value]) -> str:
    """The type of a column of overrides, which are of one kind or None."""
    return next((TYPES[type(value)] for value in values if value is not None), "VARCHAR")


def _text(words: str) -> str:
    escaped = words.replace("'", "''")
    return f"'{escaped}'"


def _duckdb() -> ModuleType:
    try:
        import duckdb
    except ImportError:
        raise Fault("collect needs duckdb, which pip install 'taskshift[train]' brings") from None
    return duckdb
