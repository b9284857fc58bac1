"""A run done again from its saved config: the same bits in another folder, whatever conf/ says by now."""

import sys

import pytest
import yaml
from runs import TINY, compose, run_in

from taskshift.compare import differences
from taskshift.faults import Fault
from taskshift.rerun import config_for, rerun

QUICK = [f"lla.enable_{name}=false" for name in ("planes", "spectrum", "rank", "units", "plasticity", "sam")]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return run_in(tmp_path_factory.mktemp("began"), compose(*TINY, *QUICK, "run_name=first", "seed=3"))


def saved_by_hand(folder, **changed):
    """A folder with nothing but a config, as an older run left it."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(compose(*TINY, "run_name=old") | changed))
    return folder


def test_the_same_run_in_a_new_folder(saved, tmp_path, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in saved.rglob("*")}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("taskshift.run.summarise", lambda job: None)
    monkeypatch.setattr(sys, "argv", ["taskshift", "rerun", str(saved), "run_name=again"])
    again = rerun(saved, ["run_name=again"])
    assert again.path.resolve() == tmp_path / "outputs/loss_landscape_taskshift/mlp/again"
    assert differences(saved, again.path) == []
    assert again.known_run()["command"] == f"cd {tmp_path} && taskshift rerun {saved} run_name=again"
    assert {path: path.stat().st_mtime_ns for path in saved.rglob("*")} == before


def test_a_run_of_a_sweep_leaves_it(tmp_path):
    config = config_for(saved_by_hand(tmp_path / "run", sweep_name="s", seed=5, num_tasks=3), ["device=cpu", "num_tasks=4"])
    assert (config["sweep_name"], config["run_name"], config["seed"]) == (None, None, 5)
    assert (config["device"], config["num_tasks"]) == ("cpu", 4)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("epochs=3", "epochs=3: this would be another run; train.py begins one, by a command like that in the saved run.json"),
        ("lla.planes.grid_resolution=9", "lla.planes.grid_resolution=9: this would be another run"),
        ("run_name=old", "run_name=old: this is the saved run's own name; give another, or leave it out"),
        ("divice=cpu", "divice: there is no such key; did you mean device?"),
        ("device=gpu", "device=gpu: expected auto, cpu, cuda, or cuda:N for GPU number N"),
    ],
)
def test_what_would_be_another_run_is_refused(tmp_path, word, sentence):
    with pytest.raises(Fault) as fault:
        config_for(saved_by_hand(tmp_path / "run"), [word])
    assert str(fault.value).startswith(sentence)


def test_keys_of_evaluators_that_cost_no_number_may_change(tmp_path):
    assert config_for(saved_by_hand(tmp_path / "run"), ["lla.on_error=mark"])["lla"]["on_error"] == "mark"


@pytest.mark.parametrize("root", ["outputs", "of/mine"])
def test_a_plugin_is_found_where_the_run_began(root, tmp_path, monkeypatch):
    (tmp_path / "began").mkdir()
    (tmp_path / "began/plugin_of_a_rerun.py").write_text("")
    place = {"output_root": root, "output_project": "p"}
    folder = saved_by_hand(tmp_path / "began" / root / "p/mlp/old", plugins=["plugin_of_a_rerun"], **place)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "path", sys.path[:])
    assert config_for(folder, [])["plugins"] == ["plugin_of_a_rerun"]
    (tmp_path / "began/plugin_of_a_rerun.py").rename(tmp_path / "gone.py")
    with pytest.raises(Fault, match="there is no module plugin_of_a_rerun"):
        config_for(folder, [])


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(Fault, match="is no run's folder: there is no config.yaml in it"):
        rerun(tmp_path, [])
