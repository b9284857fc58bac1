"""What `status` says of runs that are done, at work, waiting and broken, and what `tail` hands on from their logs."""

import io

import pytest
from rich.console import Console
from sweep_runs import EPOCHS, task_rows, write_rows, write_run_json, write_sweep

from taskshift.faults import Fault
from taskshift.sweeps import tail
from taskshift.sweeps.states import RunState
from taskshift.sweeps.status import print_status, seconds_left, show_status, standing, standings
from taskshift.sweeps.sweep_folder import SweepFolder

RUNNING, PENDING, NEW, DONE = (RunState(state, "") for state in ("running", "pending", "new", "done"))


@pytest.fixture
def sweep(tmp_path):
    """Four tasks a run, 10 s each: seed 0 is done, 1 and 2 are at work, 3 has failed, 4 waits, 5 is new."""
    folder = write_sweep(tmp_path / "sweep", {"seed": "012345"}, num_tasks=4, skip=["seed=4", "seed=5"])
    write_rows(folder / "00000001", [*task_rows(0, 0.5), *task_rows(1, 0.5)[:1]], torn='{"global_epoch": 4, "ta')
    write_rows(folder / "00000002", [])
    write_rows(folder / "00000003", task_rows(0, 0.5))
    return folder


IN_ORDER = [DONE, RUNNING, RUNNING, RunState("failed", "it broke"), PENDING, NEW]
STATES = {f"{number:08x}": state for number, state in enumerate(IN_ORDER)}


def said(runs, title="sweep"):
    console = Console(width=150, record=True, file=io.StringIO())
    print_status(title, runs, console)
    return console.export_text()


def test_how_far_each_run_is(sweep):
    runs = standings(SweepFolder(sweep), STATES)
    assert [(run.label, run.tasks_ended, run.epochs_ended) for run in runs] == [
        ("seed=0", 4, 4 * EPOCHS),
        ("seed=1", 1, EPOCHS + 1),
        ("seed=2", 0, 0),
        ("seed=3", 1, EPOCHS),
        ("seed=4", 0, 0),
        ("seed=5", 0, 0),
    ]
    assert [run.tasks_left for run in runs] == pytest.approx([0, 4 - (EPOCHS + 1) / EPOCHS, 4, 3, 4, 4])


def test_a_row_of_a_tasks_start_ends_no_epoch(tmp_path):
    write_run_json(tmp_path, seed=0, num_tasks=4)
    write_rows(tmp_path, [*task_rows(0, 0.5), {"global_epoch": EPOCHS, "task_idx": 1, "start/weights/norm": 1.0}])
    run = standing("a", tmp_path, RUNNING)
    assert (run.tasks_ended, run.epochs_ended) == (1, EPOCHS)


def test_the_time_left_counts_what_is_at_work_or_waits(sweep):
    left = (4 - (EPOCHS + 1) / EPOCHS) + 4 + 4  # of seeds 1, 2 and 4; the others don't go on by themselves
    assert seconds_left(standings(SweepFolder(sweep), STATES)) == pytest.approx(10.0 * left / 2)


def test_the_time_left_is_no_less_than_the_longest_run(sweep):
    states = STATES | {"00000004": DONE, "00000005": DONE, "00000001": DONE, "00000003": RUNNING}
    assert seconds_left(standings(SweepFolder(sweep), states)) == pytest.approx(10.0 * 4)


def test_a_length_that_is_swept_is_its_own_runs(tmp_path):
    folder = write_sweep(tmp_path / "sweep", {"num_tasks": ["3", "5"], "epochs": ["3", "6"]}, skip=["num_tasks=5 epochs=6"])
    runs = standings(SweepFolder(folder), dict.fromkeys(SweepFolder(folder).runs(), NEW))
    assert [(run.length.num_tasks, run.length.epochs) for run in runs] == [(3, 3), (3, 6), (5, 3), (5, 6)]


def test_the_words(sweep):
    lines = [" ".join(line.split()) for line in said(standings(SweepFolder(sweep), STATES), "s · python train.py").splitlines()]
    assert lines == [
        "s · python train.py",
        "6 runs: 2 running, 1 done, 1 failed, 1 pending, 1 new",
        "run state tasks done epochs done why",
        "seed=1 running 1 of 4 4 of 12",
        "seed=2 running 0 of 4 0 of 12",
        "seed=3 failed 1 of 4 3 of 12 it broke",
        "seed=4 pending 0 of 4 0 of 12",
        "seed=5 new 0 of 4 0 of 12",
        "time left: about 0:00:53, 2 at once, from the mean time of the tasks that ended",
    ]


def test_what_cannot_be_known_yet_is_not_guessed(tmp_path):
    folder = write_sweep(tmp_path / "sweep", {"seed": "01"}, skip=["seed=0", "seed=1"])
    states = {"00000000": RUNNING, "00000001": NEW}
    text = said(standings(SweepFolder(folder), states))
    assert "0 of ?" in text
    assert text.endswith("time left: known when a first task has ended\n")
    assert said(standings(SweepFolder(folder), dict.fromkeys(states, NEW))).endswith("time left: nothing is running\n")


def test_a_sweep_that_is_done_is_two_lines(tmp_path):
    folder = write_sweep(tmp_path / "sweep", {"seed": "01"})
    assert said(standings(SweepFolder(folder), dict.fromkeys(SweepFolder(folder).runs(), DONE))) == "sweep\n2 runs: 2 done\n"


def test_brackets_in_a_reason_are_no_markup(sweep):
    states = STATES | {"00000003": RunState("failed", "[red]boom[/red] [x]")}
    assert "[red]boom[/red] [x]" in said(standings(SweepFolder(sweep), states))


def test_the_folder_decides(tmp_path):
    console = Console(width=150, record=True, file=io.StringIO())
    show_status(write_sweep(tmp_path / "sweep", {"seed": "01"}), console)
    show_status(tmp_path / "sweep/00000000", console)
    text = console.export_text()
    assert "2 runs: 2 done" in text
    assert "1 run: 1 done" in text
    with pytest.raises(Fault, match="no sweep"):
        show_status(tmp_path, console)


# -- tail -----------------------------------------------------------------------------------------------------


def scripted(monkeypatch, *steps):
    """Let a step happen in each pause between two looks at the logs."""
    steps = iter(steps)
    monkeypatch.setattr(tail.time, "sleep", lambda seconds: next(steps)())
    monkeypatch.setattr(tail, "PAUSES_PER_LOOK", 1)


def add(path, text):
    with path.open("a") as file:
        file.write(text)


def test_new_lines_are_handed_on_behind_their_label(tmp_path, monkeypatch):
    one, other, lines = tmp_path / "one.log", tmp_path / "other.log", []
    add(one, "1\n2\n3\n4\n5\n")
    logs, states = {"a": tail.Log(one, "seed=0 | "), "b": tail.Log(other, "seed=1 | ")}, {"a": "running", "b": "pending"}
    scripted(
        monkeypatch,
        lambda: (add(one, "6\nha"), add(other, "begun\n")),
        lambda: None,
        lambda: (add(one, "lf\n"), states.update(a="done", b="running")),
        lambda: (add(other, "last"), states.update(b="failed")),
    )
    tail.follow(logs, lambda: states, lines.append)
    told = ["seed=0 | 3", "seed=0 | 4", "seed=0 | 5", "seed=0 | 6", "seed=1 | begun", "seed=0 | half"]
    assert lines == [
        *told,
        "nothing is at work: 1 done, 1 failed",
    ]  # of a run at work three lines to begin with; a line without an end is no line yet


def test_of_runs_that_are_over_nothing_is_said(tmp_path, monkeypatch):
    add(tmp_path / "one.log", "1\n2\n")
    lines = []
    scripted(monkeypatch)
    tail.follow({"a": tail.Log(tmp_path / "one.log", "")}, lambda: {"a": "done"}, lines.append)
    assert lines == ["nothing is at work: 1 done"]


def test_ctrl_c_ends_it(tmp_path, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    scripted(monkeypatch, interrupt)
    tail.follow({"a": tail.Log(tmp_path / "one.log", "")}, lambda: {"a": "running"}, print)


def test_tail_knows_runs_and_sweeps(tmp_path):
    write_sweep(tmp_path / "sweep", {"seed": "01"})
    tail.tail(tmp_path / "sweep", print)
    tail.tail(tmp_path / "sweep/00000001", print)
    with pytest.raises(Fault, match="no sweep"):
        tail.tail(tmp_path, print)
