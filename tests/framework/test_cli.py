"""The command `taskshift`."""

import sys
from pathlib import Path

import pytest

from taskshift import cli


def _main(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["taskshift", *words])
    try:
        cli.main()
    except SystemExit as end:
        return end.code
    return 0


def test_help_lists_the_commands(monkeypatch, capsys):
    assert _main(monkeypatch, "--help") == 0
    said = capsys.readouterr().out
    assert all(f"taskshift {command} " in said for command in cli.COMMANDS)


def test_an_unknown_command(monkeypatch, capsys):
    assert _main(monkeypatch, "trian") == 1
    assert capsys.readouterr().err.startswith("taskshift trian: there is no such command; there are train and plot")


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("hydra", "pydantic") else object())
    assert _main(monkeypatch, "train") == 1
    assert capsys.readouterr().err == "training needs hydra, pydantic, which pip install 'taskshift[train]' brings\n"


def test_a_wrong_config_is_a_sentence(monkeypatch, capsys):
    assert _main(monkeypatch, "train", "epochs=0") == 1
    assert capsys.readouterr().err == "epochs=0: expected a whole number, at least 1\n"


@pytest.mark.parametrize("words", [[], ["nowhere"], ["a", "b"]])
def test_plot_wants_one_run_folder(monkeypatch, capsys, words):
    assert _main(monkeypatch, "plot", *words) == 1
    assert "expected one run folder, which has a metrics.jsonl in it" in capsys.readouterr().err


def test_plot_prints_what_it_drew(monkeypatch, capsys, tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    monkeypatch.setattr("taskshift.plot.draw_summary", lambda folder: [Path("summary/learning.png")])
    assert _main(monkeypatch, "plot", str(tmp_path)) == 0
    assert capsys.readouterr().out == "summary/learning.png\n"
