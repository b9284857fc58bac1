"""The command `taskshift`: what each subcommand is given, what it prints, and how it ends."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from summary_runs import write_run
from sweep_runs import write_sweep

from taskshift import cli

METRIC = "task_last_epoch_accuracy"
TORCH_FREE = """
import sys
from taskshift import cli
for words in {commands}:
    sys.argv = ["taskshift", *words]
    try:
        cli.main()
    except SystemExit:
        pass
assert "torch" not in sys.modules and "matplotlib" not in sys.modules, "slow to start"
"""


@pytest.fixture
def main(monkeypatch, capsys):
    """A function: words → exit status, standard output, standard error."""

    def carry_out(*words):
        monkeypatch.setattr(sys, "argv", ["taskshift", *map(str, words)])
        try:
            cli.main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
        said = capsys.readouterr()
        return status, said.out, said.err

    return carry_out


@pytest.fixture
def sweep(tmp_path):
    grid = {"learner": ["backprop", "l2"], "seed": ["0", "1", "2"]}
    return write_sweep(tmp_path / "sweep", grid, lambda overrides, task: int(overrides["seed"]) / 10 + task / 100)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_has_a_sentence_for_each_command(main, words):
    status, said, _ = main(*words)
    assert status == 0
    said = " ".join(said.split())
    for name, (command, _) in cli.COMMANDS.items():
        sentence = command.__doc__.splitlines()[0]
        assert f"{name} {sentence}" in said
        assert sentence.endswith(".")


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name != "train"])
def test_each_command_has_a_help_of_its_own(main, name):
    status, said, _ = main(name, "--help")
    assert status == 0
    assert said.startswith(f"usage: taskshift {name} ")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], "taskshift trian: there is no such command; did you mean train? there are train, status, tail, "),
        (["plot"], "taskshift plot: the following arguments are required: FOLDER; `taskshift plot --help` lists what it takes\n"),
        (["compare", "s", "--y", "m"], "taskshift compare: the following arguments are required: --between; `taskshift compare"),
        (["plot", "s", "--kind", "pie"], "taskshift plot: argument --kind: invalid choice: 'pie'"),
        (
            ["plot", "s", "--at", "-1"],
            "--at -1: expected a task's number, from 0, or last, last:5 or first:5 (means over five) or mean (over all)\n",
        ),
        (
            ["plot", "s", "--at", "first"],
            "--at first: expected a task's number, from 0, or last, last:5 or first:5 (means over five) or mean (over all)\n",
        ),
        (["status", "nowhere"], "nowhere is no sweep's folder: there is no sweep.json in it\n"),
        (["tail", "nowhere"], "nowhere is no sweep's folder"),
        (["plot", "nowhere"], "nowhere is no sweep's folder"),
        (["compare-runs", "nowhere", "there"], "nowhere is no run's folder: there is no run.json in it\n"),
        (["rerun", "nowhere"], "nowhere is no run's folder: there is no config.yaml in it\n"),
        (["measure", "nowhere", "task=0"], "nowhere is no run's folder"),
    ],
)
def test_bad_words_are_a_sentence(main, monkeypatch, tmp_path, words, sentence):
    monkeypatch.chdir(tmp_path)
    status, said, error = main(*words)
    assert (status, said) == (1, "")
    assert error.startswith(sentence)
    assert error.count("\n") == 1


def test_without_the_extra_it_says_what_to_install(main, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("hydra", "pydantic") else object())
    assert main("train") == (1, "", "training needs hydra, pydantic, which pip install 'taskshift[train]' brings\n")


def test_a_wrong_config_is_a_sentence(main):
    assert main("train", "epochs=0") == (1, "", "epochs=0: expected a whole number, at least 1\n")


def test_plot_prints_what_it_drew(main, tmp_path, monkeypatch):
    run = write_run(tmp_path / "run")
    monkeypatch.setattr("taskshift.pictures.summary.draw_summary", lambda folder: [Path("summary/learning.png")])
    assert main("plot", run) == (0, "summary/learning.png\n", "")
    status, _, error = main("plot", run, "--y", METRIC)
    said = f"{run} is one run's folder: its pictures take no options; --y and the like are for a sweep's\n"
    assert (status, error) == (1, said)


def test_plot_of_a_sweep(main, sweep, tmp_path):
    status, said, _ = main("plot", sweep, "--y", METRIC, "--x", "learner", "--at", "1", "-o", tmp_path / "figure")
    assert (status, said.split()) == (0, [f"{tmp_path}/figure.png", f"{tmp_path}/figure.pdf"])
    assert (tmp_path / "figure.pdf").exists()


def test_status_of_a_sweep_and_of_a_run(main, sweep):
    status, said, _ = main("status", sweep, sweep / "00000000")
    assert status == 0
    assert said.splitlines() == [
        "sweep · python train.py --multirun …", "6 runs: 6 done", str(sweep / "00000000"), "1 run: 1 done",
    ]  # fmt: skip


def test_collect_writes_and_asks(main, sweep, tmp_path):
    status, said, _ = main("collect", sweep, "-o", tmp_path / "table.parquet")
    assert status == 0
    assert said.startswith(f"180 rows of 6 runs in {tmp_path}/table.parquet\n")
    _, said, _ = main("collect", sweep, "--query", "SELECT max(value) AS highest FROM metrics WHERE metric = 'epoch_accuracy'")
    assert said.split() == ["highest", "0.22"]
    assert main("collect", sweep, "-o", tmp_path / "table.parquet")[0] == 1
    assert main("collect", sweep, "-o", tmp_path / "table.parquet", "--force")[0] == 0


def test_compare_prints_its_table(main, sweep):
    status, said, _ = main("compare", sweep, "--between", "learner=backprop,l2", "--y", METRIC)
    assert status == 0
    assert re.search(r"l2 − backprop 3 (\S+) − \1 \+0 \+0 … \+0 1", " ".join(said.split()))


def test_compare_runs_prints_what_differs_and_ends_with_status_1(main, sweep):
    one, same, other = (sweep / key for key in ("00000000", "00000003", "00000001"))
    assert main("compare-runs", one, same) == (0, "the same, bit for bit\n", "")
    status, said, _ = main("compare-runs", one, other)
    assert status == 1
    assert "metrics.jsonl row 0: epoch_accuracy is 0.0 and 0.1\n" in said


@pytest.mark.parametrize(("name", "function"), [("rerun", "taskshift.rerun.rerun"), ("measure", "taskshift.remeasure.remeasure")])
def test_words_of_a_config_go_on_as_they_are(main, monkeypatch, name, function):
    given = []
    monkeypatch.setattr(function, lambda folder, words: given.append((folder, words)) or folder)
    kept = logging.getLogger("taskshift").handlers[:]
    try:
        assert main(name, "a/run", "task=[0,3]", "lla.planes.grid_resolution=51", "+lla.x.y=-1")[0] == 0
    finally:
        logging.getLogger("taskshift").handlers[:] = kept
    assert given == [(Path("a/run"), ["task=[0,3]", "lla.planes.grid_resolution=51", "+lla.x.y=-1"])]


def test_tail_of_runs_that_are_over_ends(main, sweep):
    (sweep / "00000000/train.log").write_text("a line\n")
    assert main("tail", sweep) == (0, "nothing is at work: 6 done\n", "")


def test_looking_at_a_sweep_imports_neither_torch_nor_matplotlib(sweep):
    commands = [
        ["--help"], ["status", str(sweep)], ["tail", str(sweep)], ["collect", str(sweep)],
        ["compare", str(sweep), "--between", "learner=backprop,l2", "--y", METRIC],
    ]  # fmt: skip
    script = TORCH_FREE.format(commands=commands)
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
