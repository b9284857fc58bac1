"""The table of a run, from its record."""

import io
import json
import math

import pytest
from rich.console import Console
from summary_runs import DECLARED, NOT_FINITE, write_plane, write_run

from taskshift.evaluators.spectrum import Spectrum
from taskshift.faults import Fault
from taskshift.quantities import Quantities
from taskshift.summary import by_task, plane_folders, print_table, read_rows, summary_table, write_summary_table


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def printed(folder, width=80) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_table(folder, console)
    return console.file.getvalue()


def test_a_row_a_task_has_every_column(run):
    table = summary_table(read_rows(run), DECLARED)
    assert [row["task"] for row in table] == [0, 1, 2]
    assert table[1] == {
        "task": 1,
        "loss": 1.1,
        "accuracy": 0.9,
        "test_loss": 0.8,
        "test_accuracy": 0.8,
        "top_eigenvalue": 30.0,
        "top_residual": 1e-3,
        "trace": 801.0,
        "trace_standard_error": 25.0,
        "sharpness": 0.25,
        "approximate_rank": 30.0,
        "dormant_fraction": 0.2,
        "seconds": 12.0,
    }


def test_the_columns_stand_in_the_order_of_the_printed_table(run):
    keys = ["task", "loss", "accuracy", "test_loss", "test_accuracy", "top_eigenvalue", "top_residual", "trace"]
    keys += ["trace_standard_error", "sharpness", "approximate_rank", "dormant_fraction", "seconds"]
    assert list(summary_table(read_rows(run), DECLARED)[0]) == keys
    assert printed(run).splitlines()[1:4] == [
        "                       test         λ₁    trace sharp- approx. dormant         ",
        "task loss accuracy accuracy (residual)  ± error   ness    rank   units seconds ",
        "   0  0.1    90.0%    80.0% 30 (0.001) 800 ± 25   0.25      30   20.0%      12 ",
    ]


def test_a_folder_that_does_not_say_what_its_numbers_are_has_those_of_every_run(run):
    (run / "quantities.json").unlink()
    assert list(json.loads(write_summary_table(run).read_text())[0]) == ["task", "loss", "accuracy", "seconds"]


def test_a_key_that_is_taken_gives_way_to_the_whole_name(run):
    twice = Quantities([*DECLARED, *(quantity.below("late") for quantity in Spectrum.quantities)])
    names = ["late/top_eigenvalue_1", "late/top_residual_1", "late/trace", "late/trace_standard_error"]
    assert list(summary_table(read_rows(run), twice)[0])[-5:-1] == names


def test_what_was_not_measured_is_none(tmp_path):
    table = summary_table(read_rows(write_run(tmp_path / "run", drop="spectrum/")), DECLARED)
    assert table[0]["trace"] is None
    assert table[0]["loss"] == 0.1


def test_a_task_in_progress_has_no_row(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"global_epoch": 9, "task_idx": 3, "epoch_loss": 1.0}\n')
    assert len(summary_table(read_rows(run), DECLARED)) == 3
    assert by_task(read_rows(run))[3]["epoch_loss"] == 1.0


@pytest.mark.parametrize("half", ['{"global_epoch": 9, "ta', '{"global_epoch": 9, "task_idx": 3, "epoch_loss": 1.0}'])
def test_a_line_without_its_end_is_left_out(run, half):
    whole = read_rows(run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(half)
    assert read_rows(run) == whole


def test_numbers_that_are_not_finite_come_back(tmp_path):
    table = summary_table(read_rows(write_run(tmp_path / "run", **NOT_FINITE)), DECLARED)
    assert math.isinf(table[1]["trace"])
    assert math.isnan(table[1]["top_eigenvalue"])


def test_a_folder_without_a_record_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(Fault, match=r"holds no metrics\.jsonl; give the folder of a run"):
        read_rows(tmp_path)


def test_the_table_is_written_as_json(run):
    path = write_summary_table(run)
    assert path == run / "summary" / "summary_table.json"
    assert json.loads(path.read_text()) == summary_table(read_rows(run), DECLARED)


def test_the_printed_table_fits_eighty_columns_and_cuts_no_number(run):
    lines = printed(run).splitlines()
    assert max(map(len, lines)) <= 80
    assert "30 (0.001)" in lines[4]
    assert "801 ± 25" in lines[4]
    assert "20.0%" in lines[4]


def test_a_narrow_terminal_cuts_no_number(run):
    assert "801 ± 25" in printed(run, width=30)


def test_a_column_that_no_task_has_is_not_printed(tmp_path):
    text = printed(write_run(tmp_path / "run", drop="sam/"))
    assert "ness" not in text
    assert "trace" in text


def test_numbers_that_are_not_finite_are_printed(tmp_path):
    text = printed(write_run(tmp_path / "run", **NOT_FINITE))
    assert "nan (0.001)" in text
    assert "inf ± 25" in text


@pytest.mark.parametrize(
    ("num_tasks", "shown"), [(23, list(range(23))), (24, [0, 1, 2, "…", *range(4, 24)]), (300, [0, 1, 2, "…", *range(280, 300)])]
)
def test_a_long_run_shows_the_first_and_the_last_tasks(tmp_path, num_tasks, shown):
    lines = printed(write_run(tmp_path / "run", num_tasks=num_tasks)).splitlines()[3:]
    assert [line.split()[0] for line in lines if line.strip()] == [str(task) for task in shown]


def test_the_two_pictures_to_open_first_are_named_where_they_exist(run):
    assert "open first" not in printed(run)
    (run / "summary").mkdir()
    for name in ("curvature.png", "learning.png", "planes.png"):
        (run / "summary" / name).touch()
    last = printed(run, width=20).splitlines()[-2:]
    assert [line.strip() for line in last] == [str(run / "summary" / name) for name in ("learning.png", "planes.png")]


def test_planes_are_found_by_kind_and_task_once_they_are_whole(run):
    write_plane(run, 0, "planes/hessian")
    write_plane(run, 12, "sam")
    write_plane(run, 1, "start/planes/random")
    write_plane(run, 2, "planes/random")
    (run / "task_0002_mlp/planes/random/grid.npy").unlink()
    found = plane_folders(run)
    assert found == {("hessian", 0): run / "task_0000_mlp/planes/hessian", ("sam", 12): run / "task_0012_mlp/sam"}
