"""The printed command goes on with the very run it was printed by."""

import os
import shlex

import pytest

from taskshift.origin import resume_command


@pytest.mark.parametrize(
    ("argv", "overrides", "command"),
    [
        (["train.py"], [], "python train.py run_name=x"),
        (["train.py", "seed=3"], ["seed=3"], "python train.py seed=3 run_name=x"),
        (["train.py", "run_name=x", "seed=3"], ["run_name=x", "seed=3"], "python train.py seed=3 run_name=x"),
        (["train.py", "-m", "seed=3,4"], ["seed=4"], "python train.py seed=4 run_name=x"),
        (["/usr/bin/taskshift", "net=mlp"], ["net=mlp"], "taskshift train net=mlp run_name=x"),
        (["taskshift", "rerun", "a/b", "device=cpu"], ["device=cpu"], "taskshift rerun a/b device=cpu run_name=x"),
        (["train.py", "plugins=[a]"], ["plugins=[a]"], "python train.py 'plugins=[a]' run_name=x"),
        (["train.py", "--config-dir=mine", "net=my"], ["net=my"], "python train.py --config-dir=mine net=my run_name=x"),
        (["train.py", "-cd", "mine", "net=my"], ["net=my"], "python train.py -cd mine net=my run_name=x"),
        (
            ["train.py", "hydra.searchpath=[file:///a]", "seed=1"],
            ["seed=1"],
            "python train.py 'hydra.searchpath=[file:///a]' seed=1 run_name=x",
        ),
    ],
)
def test_it_names_the_run_and_where_its_configs_are(argv, overrides, command):
    own = resume_command(argv, overrides, {"run_name": "x", "sweep_name": None})
    assert own == f"cd {shlex.quote(os.getcwd())} && {command}"


def test_it_finds_the_run_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "my thesis").mkdir()
    monkeypatch.chdir(tmp_path / "my thesis")
    command = resume_command(["train.py"], [], {"run_name": "x", "sweep_name": None})
    assert command == f"cd '{tmp_path}/my thesis' && python train.py run_name=x"


def test_a_run_of_a_sweep_goes_on_by_itself():
    config = {"run_name": "0a1b", "sweep_name": "mine"}
    command = "python train.py seed=4 sweep_name=mine run_name=0a1b"
    assert resume_command(["train.py", "-m", "seed=3,4", "sweep_name=mine"], ["seed=4", "sweep_name=mine"], config).endswith(
        f" && {command}"
    )
