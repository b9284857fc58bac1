"""Kept nets measured again: where the results go, what they equal, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from runs import TINY, compose, run_in

from taskshift.compare import differences
from taskshift.evaluators.planes import Planes
from taskshift.evaluators.spectrum import Spectrum
from taskshift.evaluators.weights import Weights
from taskshift.faults import Fault
from taskshift.intact import read_json
from taskshift.remeasure import read_order, remeasure
from taskshift.run_folder import held, read_quantities, read_rows

pytestmark = pytest.mark.slow

CHEAP = tuple(f"lla.enable_{name}=false" for name in ("spectrum", "sam", "rank", "units", "plasticity"))
"""Planes and weights alone."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run of two tasks, measured at both ends of each."""
    config = compose(*TINY, "run_name=x", "lla.at=[start,end]", "data.train_size=64", "data.test_size=16")
    return run_in(tmp_path_factory.mktemp("finished"), config)


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def tree(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and "measured" not in path.relative_to(folder).parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def without_times(numbers: dict) -> dict:
    return {name: value for name, value in numbers.items() if name.rpartition("/")[2] != "seconds"}


def findings(folder: Path) -> dict:
    return without_times(read_json(folder / "findings.json"))


# -- what comes of it -------------------------------------------------------------------------------------------


def test_a_finer_plane_goes_into_a_folder_of_its_own_and_the_run_stays_as_it_was(run):
    before = tree(run)
    measured = remeasure(run, [*CHEAP, "task=1", "lla.planes.grid_resolution=7"])
    assert measured.parent == run / "measured"
    assert np.load(measured / "task_0001_mlp/planes/random/grid.npy").shape == (7, 7)
    assert tree(run) == before
    assert not (measured / "task_0000_mlp").exists()


def test_planes_that_no_warm_start_touches_have_the_runs_bits(run):
    measured = remeasure(run, CHEAP)
    for task in ("task_0000_mlp", "task_0001_mlp"):
        grids = [(folder / task / "planes/random/grid.npy").read_bytes() for folder in (run, measured)]
        assert grids[0] == grids[1]
        assert findings(measured / task / "weights") == findings(run / task / "weights")


def test_what_began_cold_in_the_run_is_the_same_throughout(run):
    """The first phase of a run has no earlier eigenvectors to start from."""
    measured = remeasure(run, ["task=0", "phase=start"])
    for name in ("planes", "spectrum", "sam", "rank", "units", "weights", "plasticity"):
        assert findings(measured / "task_0000_mlp/start" / name) == findings(run / "task_0000_mlp/start" / name)
    row, twin = (next(r for r in read_rows(folder) if "start/weights/norm" in r) for folder in (measured, run))
    counts = {name: twin.pop(name) for name in ("global_step", "samples")}  # a kept net does not say how many there were
    assert counts == {"global_step": 0, "samples": 0}
    assert without_times(row) == without_times(twin)


def test_learning_curves_are_read_from_the_record(run):
    measured = remeasure(run, [word for word in CHEAP if "plasticity" not in word])
    assert "area_under_accuracy" in findings(measured / "task_0001_mlp/plasticity")
    assert findings(measured / "task_0001_mlp/plasticity") == findings(run / "task_0001_mlp/plasticity")


def test_rows_come_in_the_order_of_tasks_however_they_were_measured(run):
    for words in (["task=1"], ["task=0"], ["task=1", "phase=start"], ["task=[0,1]"]):
        measured = remeasure(run, [*CHEAP, *words, "lla.enable_planes=false"])
    rows = read_rows(measured)
    assert [(row["task_idx"], row["global_epoch"], "weights/norm" in row) for row in rows] == [
        (0, 1, True),
        (1, 2, False),
        (1, 3, True),
    ]
    assert "start/weights/norm" in rows[1]


def test_snapshots_that_are_gone_leave_a_plane_out_with_a_sentence(run):
    measured = remeasure(run, [*CHEAP, "task=1"])
    assert "snapshots" in (measured / "task_0001_mlp/planes/trajectory/LEFT_OUT.txt").read_text()


def test_the_learners_optimizer_is_known_where_the_run_still_stands(tmp_path):
    """Adam's preconditioned sharpness takes its second moments, which the last task's net alone has beside it."""
    config = compose(*TINY, "run_name=x", "learner/optimizer=adam", "data.train_size=64", "data.test_size=16")
    run = run_in(tmp_path, config)
    measured = remeasure(run, ["lla.enable_planes=false", "lla.enable_sam=false"])
    last = findings(run / "task_0001_mlp/spectrum")["sharpness_to_threshold"]
    assert findings(measured / "task_0001_mlp/spectrum")["sharpness_to_threshold"] == pytest.approx(last, rel=1e-2)
    assert "sharpness_to_threshold" not in findings(measured / "task_0000_mlp/spectrum")
    assert "stability_threshold" in findings(measured / "task_0000_mlp/spectrum")


def test_no_threshold_where_a_schedulers_learning_rate_is_not_known(tmp_path):
    config = compose(*TINY, "run_name=x", "learner/scheduler=cosine", "data.train_size=64", "data.test_size=16")
    run = run_in(tmp_path, config)
    measured = remeasure(run, ["lla.enable_planes=false", "lla.enable_sam=false"])
    assert "stability_threshold" not in findings(measured / "task_0000_mlp/spectrum")
    twins = [findings(folder / "task_0001_mlp/spectrum")["stability_threshold"] for folder in (measured, run)]
    assert twins[0] == twins[1]


def test_a_half_finished_run_is_measured_with_the_snapshots_it_has(tmp_path, monkeypatch):
    """Cut off in the analysis of the second task, whose snapshots are still there."""
    original, count = Planes.__call__, []

    def fails_later(self, measurement):
        count.append(measurement.task.index)
        if measurement.task.index == 1:
            raise KeyboardInterrupt
        return original(self, measurement)

    monkeypatch.setattr(Planes, "__call__", fails_later)
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, compose(*TINY, "run_name=x", "data.train_size=64", "data.test_size=16"))
    monkeypatch.undo()
    (run,) = (path.parent for path in tmp_path.glob("outputs/**/run.json"))
    before = tree(run)
    measured = remeasure(run, CHEAP)
    assert (measured / "task_0001_mlp/planes/trajectory/grid.npy").exists()
    assert tree(run) == before


def test_measure_json_says_what_was_measured_with_what(run):
    measured = remeasure(run, [*CHEAP, "task=0", "lla.planes.span=[-0.5,0.5]"])
    about, source = json.loads((measured / "measure.json").read_text()), json.loads((run / "run.json").read_text())
    assert "lla.planes.span=[-0.5,0.5]" in about["changes"]
    assert about["run"] == {"run_name": "x", "config_hash": source["config_hash"]}
    assert about["num_threads"] == 1
    assert about["versions"] == source["versions"]
    assert yaml.safe_load((measured / "config.yaml").read_text())["lla"]["planes"]["span"] == [-0.5, 0.5]
    assert read_quantities(measured).unit("planes/random/num_minima", of_classes=True) == "minima"


def test_a_measurement_makes_no_run_differ(run, finished):
    remeasure(run, [*CHEAP, "lla.enable_planes=false"])
    assert differences(run, finished) == []


# -- called again -----------------------------------------------------------------------------------------------


def test_cut_off_it_goes_on_from_the_last_finished_evaluator(run, monkeypatch):
    calls = []
    for kind in (Planes, Weights):
        monkeypatch.setattr(kind, "__call__", watched(kind.__call__, kind.__name__, calls))
    original = Weights.__call__

    def cut_off(self, measurement):
        raise KeyboardInterrupt

    monkeypatch.setattr(Weights, "__call__", cut_off)
    with pytest.raises(KeyboardInterrupt):
        remeasure(run, [*CHEAP, "task=1"])
    monkeypatch.setattr(Weights, "__call__", original)
    measured = remeasure(run, [*CHEAP, "task=1"])
    assert calls == ["Planes", "Weights"]
    remeasure(run, [*CHEAP, "task=1"])
    assert calls == ["Planes", "Weights"]
    assert "planes/random/min_loss" in read_rows(measured)[0]


def watched(original, name, calls):
    def call(self, measurement):
        calls.append(name)
        return original(self, measurement)

    return call


def test_a_failing_evaluator_is_named(run, monkeypatch):
    def fails(self, measurement):
        raise ZeroDivisionError("no such curvature")

    monkeypatch.setattr(Spectrum, "__call__", fails)
    with pytest.raises(ZeroDivisionError) as caught:
        remeasure(run, ["task=1", "lla.enable_planes=false", "lla.enable_sam=false"])
    assert caught.value.__notes__ == [
        "in the evaluator spectrum at the end of task 1; what is finished is kept; to leave it out: lla.enable_spectrum=false "
        "and a name=… of its own"
    ]


def test_a_second_process_is_refused(run):
    words = [*CHEAP, "name=mine"]
    with held(run / "measured/mine", ""), pytest.raises(Fault, match=r"another process is at work in .*give another name=…"):
        remeasure(run, words)


def test_a_folder_with_other_settings_is_refused(run):
    few = [*CHEAP, "lla.enable_planes=false", "name=mine", "task=0"]
    measured = remeasure(run, few)
    before = tree(measured)
    with pytest.raises(Fault) as caught:
        remeasure(run, [*few, "lla.evaluation_data.eval_batch_size=32"])
    assert caught.value.sentences[1:] == ("lla.evaluation_data.eval_batch_size: measured there with 64, the command says 32",)
    assert tree(measured) == before


def test_another_number_of_threads_is_warned_of(run, caplog):
    remeasure(run, [*CHEAP, "lla.enable_planes=false", "task=0", "num_threads=2"])
    assert "num_threads 1 → 2" in caplog.text


def test_a_read_only_folder_is_a_sentence(run, monkeypatch):
    def refuses(*given):
        raise PermissionError(13, "Permission denied", str(run))

    monkeypatch.setattr("taskshift.run_folder.write_text", refuses)
    with pytest.raises(Fault, match="cannot write in"):
        remeasure(run, [*CHEAP, "task=0", "lla.enable_planes=false"])


# -- the words --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("lla.plannes.span=3", "lla.plannes: there is no such key; did you mean lla.planes?"),
        (
            "lla.planes.grid_resolutoin=9",
            "lla.planes.grid_resolutoin: there is no such key; did you mean lla.planes.grid_resolution?",
        ),
        ("lla.planes.grid_resolution=many", "lla.planes.grid_resolution=many: expected a whole number"),
        ("lla.dtype=float16", "lla.dtype=float16: expected float32 or float64"),
        ("lla=[default,sam]", "lla=[default,sam]: which evaluators there are is settled in the run's config"),
        ("lla.at=[start]", "lla.at=[start]: a measurement of kept nets does not read it; phase=start or phase=end"),
        ("epochs=3", "epochs=3: this is settled, the run is measured as it is; lla.…, device"),
        ("data.train_size=3", "data.train_size=3: this is settled"),
        ("use_wandb=true", "use_wandb=true: this is settled"),
        ("tsak=3", "tsak: there is no such key; did you mean task?"),
        ("task=0,1", "task=0,1: several values are a sweep, and this is one command; a list is written in brackets"),
        ("~lla.sam", "~lla.sam: nothing can be deleted from a saved config; lla.enable_<name>=false leaves an evaluator out"),
        ("task=7", "task=7: the run has kept no net of the end of task 7; it has those of 0, 1"),
        ("task=one", "task=one: expected a task's number, or a list as in task=[0,3]"),
        ("task=true", "task=true: expected a task's number"),
        ("task=[]", "task=[]: expected a task's number"),
        ("phase=middle", "phase=middle: expected start or end"),
        ("name=a/b", "name=a/b: expected one folder name"),
        ("lla.planes.span=[", "lla.planes.span=[: this cannot be read"),
        ("device=gpu", "device=gpu: expected auto, cpu, cuda"),
    ],
)
def test_a_wrong_word_is_one_sentence_and_nothing_is_made(run, word, sentence):
    with pytest.raises(Fault) as caught:
        remeasure(run, [word])
    assert str(caught.value).startswith(sentence)
    assert not (run / "measured").exists()


def test_all_words_that_are_not_taken_are_said_at_once(run):
    with pytest.raises(Fault) as caught:
        remeasure(run, ["epochs=3", "tsak=3"])
    assert len(caught.value.sentences) == 2


def test_words_are_read_as_hydra_reads_them(finished):
    words = [
        "lla.planes.span=[-0.5,0.5]",
        "lla.tolerance=1e-2",
        "lla.enable_planes=false",
        "lla.planes.bn={exclude_bn_and_bias: true}",
    ]
    lla = read_order(finished, words).config["lla"]
    assert (lla["planes"]["span"], lla["tolerance"], lla["enable_planes"]) == ([-0.5, 0.5], 0.01, False)
    assert lla["planes"]["bn"] == {"eval_mode_only": True, "exclude_bn_and_bias": True}


def test_keys_that_follow_others_in_conf_follow_them_here(finished):
    words = ["lla.planes.grid_resolution=9", "lla.logging.save_csv=false", "lla.planes.bn.exclude_bn_and_bias=true"]
    lla = read_order(finished, words).config["lla"]
    assert (lla["sam"]["grid_resolution"], lla["planes"]["save_csv"], lla["sam"]["save_csv"]) == (9, False, False)
    assert lla["sam"]["bn"]["exclude_bn_and_bias"]
    lla = read_order(finished, ["lla.sam.grid_resolution=13", "lla.planes.grid_resolution=9"]).config["lla"]
    assert lla["sam"]["grid_resolution"] == 13


def test_an_evaluator_can_be_added(run):
    words = ["+lla.mine={_target_: taskshift.evaluators.weights.Weights}", "lla.enable_planes=false", *CHEAP, "task=0"]
    assert (remeasure(run, words) / "task_0000_mlp/mine/findings.json").exists()


def test_the_name_of_the_folder_tells_settings_apart(finished):
    def name(*words):
        return read_order(finished, words).folder.path.name

    assert name() == name("task=1") == name("lla.tolerance=null")
    assert name("lla.tolerance=1e-2", "lla.dtype=float64") == name("lla.dtype=float64", "lla.tolerance=0.01")
    assert len({name(), name("lla.tolerance=1e-2"), name("lla.dtype=float64")}) == 3
    assert name("name=7") == "7"


def test_what_is_no_runs_folder(tmp_path):
    with pytest.raises(Fault, match="is no run's folder: there is no config.yaml in it"):
        remeasure(tmp_path, [])


def test_a_run_without_a_net(run):
    for path in run.glob("checkpoints/task_*.pt"):
        path.unlink()
    with pytest.raises(Fault, match="has kept no net yet"):
        remeasure(run, [])
