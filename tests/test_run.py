"""A run end to end: what it writes, what it logs, and what it leaves alone."""

import errno
import json
import os
import re

import numpy as np
import pytest
import torch
from metric_names import undocumented
from runs import TINY, compose, run_in

from taskshift import analysis
from taskshift.config.build import build_parts
from taskshift.evaluators.evaluator import Evaluator, Findings
from taskshift.evaluators.weights import Weights
from taskshift.faults import Fault
from taskshift.pictures.summary import draw_summary
from taskshift.run import run_together
from taskshift.run_folder import RunFolder, read_quantities, read_rows, run_folder_of

FAST = (*TINY, "lla.enable_planes=false", "lla.enable_spectrum=false", "lla.enable_sam=false", "lla.enable_rank=false")
"""Training, and the evaluators that cost nothing."""


PLACE = {"global_epoch", "task_idx", "global_step", "samples"}
"""What every row has."""


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A run with pictures, at both ends of a task."""
    config = compose(
        "debug=tiny", "recorder=none", "num_threads=1", "lla.at=[start,end]", "run_name=all", "lla.plasticity.control=true"
    )
    return run_in(tmp_path_factory.mktemp("everything"), config, summary=True)


def rows_of(folder):
    return read_rows(folder)


@pytest.mark.parametrize(
    "name",
    [
        "config.yaml",
        "run.json",
        "quantities.json",
        "metrics.jsonl",
        "train.log",
        "checkpoints/latest.pt",
        "checkpoints/initial.pt",
        "checkpoints/task_0001.pt",
        *[
            f"task_0001_mlp/planes/{kind}/{file}"
            for kind in ("hessian", "random", "trajectory")
            for file in ("contour.png", "surface.png", "grid.npy", "grid.csv", "meta.json")
        ],
        *[f"task_0001_mlp/spectrum/{file}" for file in ("esd.png", "metrics.json", "quadrature.npz", "findings.json")],
        *[
            f"task_0001_mlp/sam/{file}"
            for file in ("sam_surface.png", "comparison.png", "grid.npy", "meta.json", "findings.json")
        ],
        "task_0001_mlp/rank/metrics.json",
        "task_0001_mlp/start/planes/random/grid.npy",
        "task_0001_mlp/start/spectrum/metrics.json",
        "summary/summary_table.json",
        "summary/planes.png",
        "summary/learning.png",
        "summary/curvature.png",
        "summary/plasticity.png",
    ],
)
def test_the_folder_holds_what_the_design_promises(everything, name):
    assert (everything / name).stat().st_size > 0


def test_nothing_half_written_or_temporary_stays(everything):
    left = [path.name for path in everything.rglob("*") if "partial" in path.name or path.name == ".scratch"]
    assert left == []
    assert not list((everything / "checkpoints" / "trajectory").iterdir()), "snapshots of finished tasks"


def test_a_trajectory_plane_exists_at_the_end_only(everything):
    assert (everything / "task_0000_mlp" / "planes" / "trajectory" / "grid.npy").exists()
    assert not (everything / "task_0000_mlp" / "start" / "planes" / "trajectory" / "grid.npy").exists()


def test_steps_and_names_of_the_rows(everything):
    rows = rows_of(everything)
    epochs = [row for row in rows if "epoch_loss" in row]
    assert [row["global_epoch"] for row in epochs] == [0, 1, 2, 3]
    assert [row["task_idx"] for row in epochs] == [0, 0, 1, 1]
    assert {"epoch_accuracy", "test_loss", "test_accuracy"} <= epochs[0].keys()
    ends = [row for row in rows if "task_last_epoch_loss" in row]
    assert [row["global_epoch"] for row in ends] == [1, 3]
    assert [row["task_last_epoch_loss"] for row in ends] == [epochs[1]["epoch_loss"], epochs[3]["epoch_loss"]]
    starts = [row for row in rows if any(name.startswith("start/") for name in row)]
    assert [row["global_epoch"] for row in starts] == [0, 2]
    assert all(name.startswith("start/") for row in starts for name in row.keys() - PLACE)
    config = compose("debug=tiny")
    count, size = config["data"]["train_size"], config["batch_size"]
    assert [row["samples"] for row in epochs] == [count * (number + 1) for number in range(4)]
    assert [row["global_step"] for row in epochs] == [-(-count // size) * (number + 1) for number in range(4)]
    assert [row["samples"] for row in starts] == [0, 2 * count]
    assert [row["samples"] for row in ends] == [2 * count, 4 * count]


def test_rows_within_a_task_come_every_so_many_steps(tmp_path):
    """Two tasks of 2 epochs of 8 steps; a bin that the task's end cuts short is logged there, one that an epoch ends goes on."""
    whole = rows_of(run_in(tmp_path, compose(*FAST, "run_name=x", "log_every=5")))
    bins, epochs = ([row for row in whole if f"{kind}_loss" in row] for kind in ("bin", "epoch"))
    assert [row["global_step"] for row in bins] == [5, 10, 15, 16, 21, 26, 31, 32]
    assert [row["global_epoch"] for row in bins] == [0, 1, 1, 1, 2, 3, 3, 3]
    assert {"bin_accuracy", "samples", "task_idx"} <= bins[0].keys()
    assert not any("epoch_loss" in row for row in bins)
    for task in (0, 1):
        of_task = [row for row in bins if row["task_idx"] == task]
        shares = [5, 5, 5, 1]
        means = [row["epoch_accuracy"] for row in epochs if row["task_idx"] == task]
        mean = sum(share * row["bin_accuracy"] for share, row in zip(shares, of_task, strict=True)) / 16
        assert mean == pytest.approx(sum(means) / 2, abs=1e-6)


def test_every_value_is_a_number(everything):
    assert all(type(value) in (int, float) for row in rows_of(everything) for value in row.values())


def test_metrics_md_and_the_run_itself_say_what_every_name_is(everything):
    names = {name for row in rows_of(everything) for name in row}
    assert undocumented(names) == []
    said = read_quantities(everything)
    assert [name for name in names if said.of(name) is None] == []
    assert said.of("start/spectrum/trace").meaning.startswith("Σλ, the mean of zᵀHz")


def test_the_recorded_baseline_is_the_loss_and_the_grid_path_agrees(everything):
    for meta_path in everything.glob("task_*/**/planes/*/meta.json"):
        meta = json.loads(meta_path.read_text())
        grid = np.load(meta_path.with_name("grid.npy"))
        centre = len(grid) // 2
        assert grid[centre, centre] == meta["baseline_loss"]
        assert abs(meta["centre_difference"]) <= 1e-6 + 1e-5 * abs(meta["baseline_loss"])


def test_resuming_a_finished_run_with_more_tasks(tmp_path):
    config = compose(*FAST, "num_tasks=1", "run_name=x")
    run_in(tmp_path, config)
    folder = run_in(tmp_path, dict(config) | {"num_tasks": 3})
    assert [row["task_idx"] for row in rows_of(folder) if "task/seconds" in row] == [0, 1, 2]


def test_analysis_every_few_tasks_and_few_nets_kept(tmp_path):
    config = compose(*FAST, "num_tasks=5", "epochs=1", "lla.every=2", "checkpoints.keep=2", "run_name=x")
    folder = run_in(tmp_path, config)
    assert sorted(path.name for path in folder.glob("task_*")) == ["task_0000_mlp", "task_0002_mlp", "task_0004_mlp"]
    assert sorted(path.name for path in folder.glob("checkpoints/task_*.pt")) == ["task_0003.pt", "task_0004.pt"]
    ends = [row for row in rows_of(folder) if "task/seconds" in row]
    assert len(ends) == 5, "a task that is not analysed has its row all the same"
    assert ["weights/norm" in row for row in ends] == [True, False, True, False, True]


# -- evaluators that misbehave ----------------------------------------------------------------------------------


def fails(self, measurement):
    raise ZeroDivisionError("no such curvature")


def test_a_failing_evaluator_stops_the_run_and_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Weights, "__call__", fails)
    with pytest.raises(ZeroDivisionError) as error:
        run_in(tmp_path, compose(*FAST, "run_name=x"))
    assert "in the evaluator weights at the end of task 0" in error.value.__notes__[0]
    assert "lla.enable_weights=false" in error.value.__notes__[0]
    monkeypatch.undo()
    folder = run_in(tmp_path, compose(*FAST, "run_name=x", "lla.enable_weights=false"))
    assert len([row for row in rows_of(folder) if "task/seconds" in row]) == 2, "the run goes on without it"


def test_a_plane_over_the_limit_of_hours_is_sentences_and_goes_on_with_a_higher_one(tmp_path):
    options = (*FAST, "run_name=x", "num_tasks=1", "lla.enable_planes=true", "lla.planes.include_hessian=false")
    options += ("lla.planes.grid_resolution=9", "lla.planes.chunk_size=3")
    with pytest.raises(Fault) as fault:
        run_in(tmp_path, compose(*options, "lla.runtime.abort_if_estimated_hours_over=1e-12"))
    assert "more than abort_if_estimated_hours_over = 1e-12" in fault.value.sentences[0]
    assert "in the evaluator planes at the end of task 0; to go on without it:" in fault.value.sentences[1]
    (end,) = [row for row in rows_of(run_in(tmp_path, compose(*options))) if "task/seconds" in row]
    assert end["planes/random/num_evaluated"] == 81


def test_the_head_of_lla_reaches_the_planes(tmp_path):
    options = ("num_tasks=1", "lla.enable_planes=true", "lla.planes.include_hessian=false", "lla.planes.grid_resolution=41")
    more = ("lla.planes.include_trajectory=false", "lla.planes.span=[-0.05,0.05]", "lla.tolerance=0.05", "lla.compile=false")
    folder = run_in(tmp_path, compose(*FAST, "run_name=x", *options, *more))
    meta = json.loads((folder / "task_0000_mlp" / "planes" / "random" / "meta.json").read_text())
    assert (meta["tolerance"], meta["compiled"]) == (0.05, False)
    assert meta["num_evaluated"] < 41 * 41


def test_with_mark_the_run_goes_on_and_ends_with_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(Weights, "__call__", fails)
    with pytest.raises(Fault, match="2 evaluations failed.*task_0000_mlp/weights/FAILED"):
        run_in(tmp_path, compose(*FAST, "run_name=x", "lla.on_error=mark"), summary=True)
    (folder,) = tmp_path.glob("outputs/*/*/x")
    assert "no such curvature" in (folder / "task_0001_mlp" / "weights" / "FAILED").read_text()
    ends = [row for row in rows_of(folder) if "task/seconds" in row]
    assert all("units/dead_fraction" in row and "weights/norm" not in row for row in ends)


class Meddles:
    """Ways to leave a trace."""

    def in_parameters(self, measurement):
        with torch.no_grad():
            next(measurement.training.net.parameters()).add_(1)
        return Findings({})

    def in_optimizer(self, measurement):
        measurement.training.learner.optimizer.param_groups[0]["lr"] = 9.0
        return Findings({})


@pytest.mark.parametrize(("way", "named"), [("in_parameters", "state.net."), ("in_optimizer", "schedule.groups[0].lr")])
def test_an_evaluator_that_changes_the_training_is_named(way, named, tmp_path, monkeypatch):
    monkeypatch.setattr(Weights, "__call__", getattr(Meddles, way))
    with pytest.raises(RuntimeError, match=f"the evaluator weights changed the training's {re.escape(named)}"):
        run_in(tmp_path, compose(*FAST, "run_name=x"))


def test_drawing_training_and_gradients_inside_an_evaluator_leave_no_trace(tmp_path, monkeypatch):
    config = compose(*FAST, "run_name=x", "net.norm=batch")
    plain = rows_of(run_in(tmp_path / "plain", config) if (tmp_path / "plain").mkdir() is None else None)
    original = Weights.__call__

    def noisy(self, measurement):
        torch.rand(100)
        torch.manual_seed(5)
        measurement.surface.gradient()
        measurement.training.net.train()
        for parameter in measurement.training.net.parameters():
            parameter.grad = torch.ones_like(parameter)
        return original(self, measurement)

    monkeypatch.setattr(Weights, "__call__", noisy)
    (tmp_path / "noisy").mkdir()
    after = rows_of(run_in(tmp_path / "noisy", config))
    timed = ("seconds", "memory_mb")

    def without_timings(rows):
        return [{name: value for name, value in row.items() if name.rpartition("/")[2] not in timed} for row in rows]

    assert without_timings(after) == without_timings(plain)


class Wordy(Evaluator):
    """Returns what is no number."""

    def __call__(self, measurement):
        return Findings({"verdict": "flat"})


def test_findings_that_are_no_numbers_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Weights, "__call__", Wordy.__call__)
    with pytest.raises(TypeError, match="verdict"):
        run_in(tmp_path, compose(*FAST, "run_name=x"))


def test_the_same_examples_for_every_evaluator_and_the_asked_for_number(tmp_path, monkeypatch):
    seen = []
    original = analysis.evaluation_batches

    def watched(job, task):
        batches = original(job, task)
        seen.append([len(batch.targets) for batch in batches])
        return batches

    monkeypatch.setattr(analysis, "evaluation_batches", watched)
    options = ("lla.evaluation_data.eval_batch_size=30", "lla.evaluation_data.num_batches=null")
    run_in(
        tmp_path, compose(*FAST, "run_name=x", "num_tasks=1", *options, "lla.evaluation_data.dataset_fraction_for_landscape=0.5")
    )
    config = compose(*FAST)
    examples = config["data"]["train_size"]
    assert len(seen) == 1
    assert sum(seen[0]) == round(0.5 * examples)


# -- disks that refuse --------------------------------------------------------------------------------------------


def test_a_full_disk_is_a_sentence_and_the_run_goes_on_later(tmp_path, monkeypatch):
    config = compose(*FAST, "run_name=x")
    original, calls = RunFolder.append_row, 0

    def full(self, row):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.metrics))
        original(self, row)

    monkeypatch.setattr(RunFolder, "append_row", full)
    with pytest.raises(Fault, match="No space left on device.*start the same command again, what was saved is whole"):
        run_in(tmp_path, config)
    monkeypatch.undo()
    assert len([row for row in rows_of(run_in(tmp_path, config)) if "task/seconds" in row]) == 2


def test_a_file_where_the_folder_should_be_is_a_sentence(tmp_path):
    (tmp_path / "outputs").write_text("mine")
    with pytest.raises(Fault, match="cannot write in .*Not a directory"):
        run_in(tmp_path, compose(*FAST, "run_name=x"))
    assert (tmp_path / "outputs").read_text() == "mine"


def test_an_error_of_the_disk_that_is_none_of_the_users_is_left_alone(tmp_path, monkeypatch):
    def broken(self, row):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(RunFolder, "append_row", broken)
    with pytest.raises(OSError, match="Input/output"):
        run_in(tmp_path, compose(*FAST, "run_name=x"))


@pytest.mark.parametrize(
    ("net", "joined"), [(["net.norm=batch"], True), (["net.norm=none"], False), (["net=convnet", "net.norm=batch"], None)]
)
def test_a_last_batch_of_one_does_not_stop_a_net_with_batch_norm(net, joined, tmp_path):
    """65 examples in batches of 64: batch norm over one value a channel is refused by torch."""
    quick = ["lla.enable_planes=false", "lla.enable_spectrum=false", "lla.enable_sam=false", "lla.enable_coupling=false"]
    config = compose(*TINY, *net, *quick, "data.train_size=65", "num_tasks=1", "epochs=1", "lla.enable_plasticity=false")
    run_in(tmp_path, config)
    if joined is not None:
        assert build_parts(config).stream.joins_single is joined


QUICK = [f"lla.enable_{name}=false" for name in ("planes", "spectrum", "sam", "coupling", "plasticity", "rank", "units")]


def test_pictures_that_cannot_be_drawn_do_not_stop_a_run(tmp_path, monkeypatch, caplog):
    def fails(folder):
        raise ValueError("no such colour")

    monkeypatch.setattr("taskshift.pictures.summary.draw_summary", fails)
    folder = run_in(tmp_path, compose(*FAST, *QUICK, "run_name=x"), summary=True)
    assert RunFolder(folder, "").tasks_done() == 2
    assert (folder / "report.html").exists()
    written = folder.relative_to(tmp_path)
    assert f"the pictures were not drawn (ValueError: no such colour); `taskshift plot {written}` tries again" in caplog.messages


def test_a_sweeps_member_writes_its_table_and_draws_when_asked(tmp_path):
    words = ["sweep_name=mine", "run_name=abc", "num_tasks=1"]
    folder = run_in(tmp_path, compose(*FAST, *QUICK, *words), summary=True)
    assert {path.name for path in (folder / "summary").iterdir()} == {"summary_table.json", "coupling.json"}
    assert not (folder / "report.html").exists()
    assert [path.name for path in draw_summary(folder)][:1] == ["learning.png"]


def test_runs_together_are_each_answered_for_in_their_place(tmp_path, monkeypatch):
    configs = [compose(*FAST, f"run_name=seed_{seed}", f"seed={seed}", "num_tasks=1") for seed in range(3)]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("taskshift.run.introduce", lambda job: 1 / 0 if job.config["seed"] == 1 else None)
    first, second, third = run_together(configs, [[], [], []])
    assert (first, third) == (None, None)
    assert isinstance(second, ZeroDivisionError)
    folders = [run_folder_of(config) for config in configs]
    assert [folder.done.exists() for folder in folders] == [True, False, True]
    assert [folder.failed.exists() for folder in folders] == [False, True, False]
    assert "ZeroDivisionError" in folders[1].failed.read_text()
