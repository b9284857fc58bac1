"""The printed command goes on with the very run it was printed by."""

import importlib
import os
import shlex

import pytest

from taskshift.origin import resume_command, source_hash
from taskshift.plugin_code import plugin_files
from taskshift.sweeps.launch import Sweep
from taskshift.sweeps.plan import Plan, PlannedRun
from taskshift.sweeps.sweep_folder import SweepFolder


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


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """A plugin that is a module, and one that is a package; the name by which a config names something of the latter."""
    (tmp_path / "lone_plugin.py").write_text("ONE = 1\n")
    (tmp_path / "folder_plugin" / "deep").mkdir(parents=True)
    for place in ("__init__.py", "deep/__init__.py", "deep/nets.py", "notes.txt"):
        (tmp_path / "folder_plugin" / place).write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return ("lone_plugin", "folder_plugin.deep")


def test_a_plugins_files_are_found(plugins, tmp_path):
    places = ["folder_plugin/__init__.py", "folder_plugin/deep/__init__.py", "folder_plugin/deep/nets.py", "lone_plugin.py"]
    found = plugin_files([*plugins, "not_there"])
    assert sorted(map(str, found)) == places
    assert all(found[place] == tmp_path / place for place in found)


@pytest.mark.parametrize("edited", ["lone_plugin.py", "folder_plugin/deep/nets.py"])
def test_an_edited_plugin_is_other_code(edited, plugins, tmp_path):
    def now():
        source_hash.cache_clear()  # of code that this process saw before
        return source_hash(plugins)

    before = now()
    assert before == now() != source_hash()
    (tmp_path / edited).write_text("TWO = 2\n")
    assert now() != before


def test_a_sweeps_copy_of_the_code_holds_its_plugins(plugins, tmp_path):
    run = PlannedRun("0a1b", "seed=0", {}, [], {"plugins": list(plugins)})
    sweep = Sweep(Plan("mine", [], [], [run]), SweepFolder(tmp_path / "sweep"), None, 0, snapshot=True)
    code = sweep.code()
    assert (code / "lone_plugin.py").read_text() == "ONE = 1\n"
    assert (code / "folder_plugin" / "deep" / "nets.py").exists()
    assert (code / "taskshift" / "origin.py").exists()
    assert not (code / "folder_plugin" / "notes.txt").exists()
