"""The table of every number of every run: nothing is lost on the way to a file, whatever state a run is in."""

import io
import json
import math

import duckdb
import pytest
from rich.console import Console
from sweep_runs import task_rows, write_rows, write_sweep

from taskshift.faults import Fault
from taskshift.sweeps.collect import collect
from taskshift.sweeps.records import typed

GRID = {"learner": ["backprop", "l2"], "net.width": ["8", "16"], "seed": ["0", "1"]}
ODD = {"nan": math.nan, "above": math.inf, "below": -math.inf, "tiny": 5e-324, "third": 1 / 3, "whole": 3}


def said(*folders, output=None, query=None, force=False):
    console = Console(width=200, record=True, file=io.StringIO())
    collect(folders, output, query, force, console)
    return console.export_text()


def read(path, columns="*"):
    """A file's rows, by DuckDB without our code."""
    return duckdb.sql(f"SELECT {columns} FROM '{path}' ORDER BY ALL").fetchall()


def written(folder):
    """(run, epoch, task, metric, value) of every number in the runs' records."""
    for path in folder.glob("*/metrics.jsonl"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            place = int(row.pop("global_epoch")), int(row.pop("task_idx"))
            yield from ((path.parent.name, *place, metric, float(value)) for metric, value in row.items())


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_every_number_of_every_run_is_in_the_file(tmp_path, ending):
    sweep, table = write_sweep(tmp_path / "sweep", GRID, lambda overrides, task: 0.1 * task), tmp_path / f"new/table.{ending}"
    text = said(sweep, output=table)
    found = read(table, 'run, global_epoch, task_idx, metric, "value"')
    assert found == sorted(written(sweep))
    assert text.startswith(f"{len(found)} rows of 8 runs in {table}\n")
    assert [path.name for path in table.parent.iterdir()] == [table.name]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_values_survive_to_the_last_bit(tmp_path, ending):
    sweep, table = write_sweep(tmp_path / "sweep", {"seed": ["0"]}), tmp_path / f"table.{ending}"
    write_rows(sweep / "00000000", [{"global_epoch": 0, "task_idx": 0} | ODD])
    said(sweep, output=table)
    found = dict(read(table, 'metric, "value"::DOUBLE'))
    assert found.keys() == ODD.keys()
    assert all(repr(found[name]) == repr(float(value)) for name, value in ODD.items())


def test_overrides_are_columns_of_their_own_type(tmp_path):
    table = tmp_path / "table.parquet"
    said(write_sweep(tmp_path / "sweep", GRID), output=table)
    kinds = {name: kind for name, kind, *_ in duckdb.sql(f"DESCRIBE SELECT * FROM '{table}'").fetchall()}
    assert kinds == {
        "sweep": "VARCHAR", "run": "VARCHAR", "state": "VARCHAR", "learner": "VARCHAR", "net.width": "BIGINT", "seed": "BIGINT",
        "global_epoch": "BIGINT", "task_idx": "BIGINT", "metric": "VARCHAR", "value": "DOUBLE",
    }  # fmt: skip
    combinations = duckdb.sql(f"SELECT DISTINCT learner, \"net.width\", seed, run FROM '{table}'").fetchall()
    assert len(combinations) == 8
    assert ("l2", 16, 0, "00000006") in combinations


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["1", "2"], [1, 2]),
        (["1", "0.5", "1e-3"], [1.0, 0.5, 0.001]),
        (["true", "False"], [True, False]),
        (["1", "null", None], [1, None, None]),
        (["1", "l2"], ["1", "l2"]),
        (["[64,64]", "[8]"], ["[64,64]", "[8]"]),
        (["null"], [None]),
    ],
)
def test_a_column_has_one_type(texts, values):
    assert [(type(value), value) for value in typed(texts)] == [(type(value), value) for value in values]


def test_sweeps_that_vary_other_keys_are_joined_with_nulls(tmp_path):
    one = write_sweep(tmp_path / "one", {"learner": ["l2"], "seed": ["0", "1"]})
    other = write_sweep(tmp_path / "other", {"net.width": ["8"], "epochs": ["3"]})
    table = tmp_path / "table.parquet"
    said(one, other, one, output=table)
    found = duckdb.sql(f"SELECT DISTINCT sweep, learner, \"net.width\", epochs, seed FROM '{table}' ORDER BY ALL").fetchall()
    assert found == [("one", "l2", None, None, 0), ("one", "l2", None, None, 1), ("other", None, 8, 3, 7)]


def test_sweeps_of_one_name_are_told_apart(tmp_path):
    sweeps = [write_sweep(tmp_path / project / "sweep", {"seed": ["0"]}) for project in "ab"]
    table = tmp_path / "table.parquet"
    said(*sweeps, output=table)
    assert duckdb.sql(f"SELECT DISTINCT sweep FROM '{table}' ORDER BY ALL").fetchall() == [(str(sweep),) for sweep in sweeps]


def test_runs_that_are_being_written_failed_or_have_not_begun(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", {"seed": ["0", "1", "2"]}, skip=["seed=2"])
    (sweep / "00000001/DONE").unlink()
    (sweep / "00000001/FAILED").write_text("RuntimeError: it broke\n")
    write_rows(sweep / "00000001", task_rows(0, 0.5)[:2], torn='{"global_epoch": 2, "task_i')
    table = tmp_path / "table.csv"
    assert "; 1 run logged nothing so far" in said(sweep, output=table)
    counts = duckdb.sql(f"SELECT run, state, count(*) FROM '{table}' GROUP BY ALL ORDER BY ALL").fetchall()
    assert counts == [("00000000", "done", 3 * 10), ("00000001", "failed", 4)]


def test_a_sweep_of_which_nothing_is_logged(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", {"seed": ["0"]}, skip=["seed=0"])
    assert said(sweep).strip() == "0 rows of 0 runs; 1 run logged nothing so far"


def test_the_example_query_is_one_that_works(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", GRID, lambda overrides, task: float(overrides["seed"]))
    example = said(sweep).splitlines()[1].partition("--query: ")[2]
    lines = said(sweep, query=example).splitlines()
    assert lines[0].split()[:3] == ["learner", "net.width", "task_idx"]
    assert lines[1].split() == ["backprop", "8", "0", "0.5"]


def test_a_query_is_answered_from_all_sweeps(tmp_path):
    write_sweep(tmp_path / "sweep", GRID)
    assert said(tmp_path / "sweep", query="SELECT count(DISTINCT run) AS runs FROM metrics").split() == ["runs", "8"]


@pytest.mark.parametrize("query", ["SELECT nothing FROM metrics", "SELEC", "COPY metrics TO '/nowhere/x.csv'"])
def test_a_query_that_cannot_be_answered_is_a_sentence(tmp_path, query):
    write_sweep(tmp_path / "sweep", {"seed": ["0"]})
    with pytest.raises(Fault) as fault:
        said(tmp_path / "sweep", query=query)
    assert str(fault.value).startswith("--query: ")
    assert "\n" not in str(fault.value)


def test_a_file_is_written_over_only_when_asked(tmp_path):
    sweep, table = write_sweep(tmp_path / "sweep", {"seed": ["0"]}), tmp_path / "table.csv"
    table.write_text("mine")
    with pytest.raises(Fault, match="table.csv exists; give another name, or --force to write over it"):
        said(sweep, output=table)
    assert table.read_text() == "mine"
    said(sweep, output=table, force=True)
    assert len(read(table)) == 30


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("table.txt", "expected a file name that ends with .parquet or .csv"),
        ("taken/table.csv", "cannot write .*table.csv: .*; give another -o"),
    ],
)
def test_a_file_that_cannot_be(tmp_path, name, sentence):
    sweep = write_sweep(tmp_path / "sweep", {"seed": ["0"]})
    (tmp_path / "taken").write_text("a file, no folder")
    with pytest.raises(Fault, match=sentence):
        said(sweep, output=tmp_path / name)


def test_a_folder_that_is_no_sweeps(tmp_path):
    with pytest.raises(Fault, match="no sweep"):
        said(tmp_path)
