"""`--multirun`: all jobs are checked before the first begins, and a job that fails stops no other."""

import pytest

from taskshift.config.command import compose
from taskshift.faults import Fault
from taskshift.sweeps.sweep import check_all, labels_of
from tests.framework.commands import carry_out

SMALL = ("data=synthetic_images", "recorder=none", "num_threads=1")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())  # Hydra writes nothing of its own


def test_every_combination_is_run():
    seen = []
    assert carry_out("-m", *SMALL, "learner=backprop,l2", "seed=range(2)", job=lambda *given: seen.append(given)) == 0
    found = [(list(config["learner"]["regularizers"]), config["seed"]) for config, _ in seen]
    assert found == [([], 0), ([], 1), (["l2"], 0), (["l2"], 1)]
    assert all(type(config) is dict and config["arch"] == "mlp" for config, _ in seen)
    assert seen[3][1][-2:] == ["learner=l2", "seed=1"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["epochs=1,0"], "epochs=0: expected a whole number, at least 1 (in epochs=0)\n"),
        (["net.width=3,0,4"], "net.width=0 was asked for; give a whole number, 1 or more (in net.width=0)\n"),
        (["epochs=0", "seed=0,1"], "epochs=0: expected a whole number, at least 1 (in seed=0; seed=1)\n"),
        (["net=mlp,mpl"], "net=mpl: there is no such net; give convnet, deep_linear, mlp, own, resnet18 or vgg16\n"),
        (["seed=1,1"], f"{' '.join(SMALL)} seed=1: the sweep has this run 2 times; give each value once\n"),
        (["seed=1,2", "run_name=x"], "run_name=x: 2 runs would write to one folder (seed=1; seed=2); leave run_name out\n"),
    ],
)
def test_nothing_begins_while_anything_is_wrong(words, sentence, capsys):
    seen = []
    assert carry_out("-m", *SMALL, *words, job=lambda *given: seen.append(given)) == 1
    assert capsys.readouterr().err == sentence
    assert not seen


def test_a_job_that_fails_is_named_and_stops_no_other(capsys):
    seen = []

    def job(config, overrides):
        seen.append(config["seed"])
        if config["seed"] == 1:
            raise Fault("the disk is full")
        if config["seed"] == 2:
            raise ZeroDivisionError("a bug")

    assert carry_out("-m", *SMALL, "seed=range(4)", job=job) == 1
    assert seen == [0, 1, 2, 3]
    assert capsys.readouterr().err == "2 of 4 runs failed\nseed=1: the disk is full\nseed=2: ZeroDivisionError: a bug\n"


def test_ctrl_c_ends_the_whole_sweep():
    seen = []

    def job(config, overrides):
        seen.append(config["seed"])
        raise KeyboardInterrupt

    assert carry_out("-m", *SMALL, "seed=range(4)", job=job) == 130
    assert seen == [0]


def test_objects_are_made_once_for_all_seeds(monkeypatch):
    built = []
    monkeypatch.setattr("taskshift.config.build.build_parts", lambda config: built.append(config["seed"]))
    configs = [compose(*SMALL, f"seed={seed}", f"epochs={epochs}") for seed in (0, 1) for epochs in (1, 2)]
    check_all(configs, ["a", "b", "c", "d"])
    assert len(built) == 2


def test_labels_are_what_differs():
    assert labels_of([["a=1", "b=1"], ["a=1", "b=2"]]) == ["b=1", "b=2"]
    assert labels_of([["a=1"]]) == ["a=1"]
