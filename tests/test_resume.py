"""Killed anywhere and called again, a run ends with the bits of one that was left alone."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from interrupting import Interrupted, interrupt
from runs import TINY, compose, run_in

from loss_landscape import files
from taskshift import checkpoint
from taskshift.compare import differences
from taskshift.config.build import build_parts
from taskshift.faults import Fault
from taskshift.job import Job
from taskshift.run_folder import RunFolder, read_rows

SETTINGS = (*TINY, "num_tasks=2", "run_name=one", "checkpoints.every_seconds=0", "learner.scheduler=null", "net.norm=batch")
KILLED_RUN = Path(__file__).parent / "framework" / "killed_run.py"


@pytest.fixture(scope="module")
def config():
    return compose(*SETTINGS)


@pytest.fixture(scope="module")
def uninterrupted(config, tmp_path_factory):
    """The folder of the run that nobody disturbed."""
    return run_in(tmp_path_factory.mktemp("uninterrupted"), config)


@pytest.mark.parametrize(
    ("owner", "name", "counts"),
    [
        (Job, "save", (1, 2, 3, 5, 8, 8)),
        (RunFolder, "append_row", (1, 2, 1, 2)),
        (Job, "tick", (1, 4, 9, 15, 9)),
        (checkpoint, "save", (1, 3, 7, 12, 12)),
        (checkpoint, "write_whole", (2, 4, 9, 12)),
        (files, "write_whole", (2, 4, 5, 6)),
    ],
)
def test_interrupted_and_resumed_equals_uninterrupted(owner, name, counts, config, uninterrupted, tmp_path):
    """One folder, interrupted again and again: each attempt goes a little further."""
    for count in counts:
        with pytest.MonkeyPatch.context() as patch:
            interrupt(patch, owner, name, count)
            with pytest.raises(Interrupted):
                run_in(tmp_path, config)
    assert differences(run_in(tmp_path, config), uninterrupted) == []


@pytest.mark.parametrize(
    ("place", "count", "when"),
    [
        pytest.param("taskshift.training:Training.learn", 7, "before", marks=pytest.mark.slow),
        pytest.param("taskshift.evaluators.spectrum:Spectrum.__call__", 2, "after", marks=pytest.mark.slow),
        ("taskshift.run_folder:RunFolder.append_row", 3, "after"),
    ],
    ids=["in training", "inside an evaluator", "between a row and its checkpoint"],
)
def test_killed_for_real(place, count, when, config, uninterrupted, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = [sys.executable, str(KILLED_RUN), place, str(count), when, "config.json"]
    killed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = tmp_path / "outputs" / uninterrupted.relative_to(uninterrupted.parents[3] / "outputs")
    assert differences(left, uninterrupted) != [], "the kill must land before the end"
    assert differences(run_in(tmp_path, config), uninterrupted) == []


def test_a_row_after_the_last_checkpoint_is_cut_and_comes_again(config, uninterrupted, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, RunFolder, "append_row", 2)
        with pytest.raises(Interrupted):
            run_in(tmp_path, config)
    (left,) = tmp_path.glob("outputs/*/*/one")
    kept = checkpoint.load(left / "checkpoints" / "latest.pt")["num_rows"]
    assert len(read_rows(left)) == kept + 1
    assert differences(run_in(tmp_path, config), uninterrupted) == []


def test_a_finished_run_is_extended_with_the_same_bits(config, uninterrupted, tmp_path):
    shorter = dict(config) | {"num_tasks": 1}
    run_in(tmp_path, shorter)
    assert differences(run_in(tmp_path, config), uninterrupted) == []


def test_a_cycle_over_tasks_of_other_sizes_is_extended_with_the_same_bits(tmp_path):
    """Its number of steps is each task's own, and so is the control net's."""
    quick = [f"lla.enable_{name}=false" for name in ("planes", "spectrum", "sam", "coupling", "rank", "units", "weights")]
    words = ["learner/scheduler=one_cycle", "learner.scheduler_every=step", "task_shift_mode=class_pairs", "batch_size=5"]
    words += ["data.train_size=53", "net.norm=none"]  # 10 or 11 examples a task
    config = compose(
        *(word for word in SETTINGS if "scheduler" not in word), *quick, *words, "lla.plasticity.control=true", "num_tasks=3"
    )
    stream = build_parts(config).stream
    assert len({stream.num_batches(task) for task in stream}) > 1
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = run_in(tmp_path / "whole", config)
    run_in(tmp_path / "cut", config | {"num_tasks": 1})
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, Job, "tick", 5)
        with pytest.raises(Interrupted):
            run_in(tmp_path / "cut", config)
    assert differences(run_in(tmp_path / "cut", config), whole) == []


def test_a_run_goes_on_where_it_was_moved(config, uninterrupted, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, RunFolder, "append_row", 3)
        with pytest.raises(Interrupted):
            run_in(tmp_path, config)
    (tmp_path / "outputs").rename(tmp_path / "elsewhere")
    folder = run_in(tmp_path, config | {"output_root": "elsewhere"})
    assert folder.parents[2] == tmp_path / "elsewhere"
    assert differences(folder, uninterrupted) == []
    assert not (tmp_path / "outputs").exists()


def test_a_finished_run_called_again_changes_nothing(config, uninterrupted, tmp_path):
    first = run_in(tmp_path, config)
    before = (first / "metrics.jsonl").read_bytes()
    assert (run_in(tmp_path, config) / "metrics.jsonl").read_bytes() == before


def test_another_seed_in_the_folder_is_refused_and_loses_nothing(config, tmp_path):
    first = run_in(tmp_path, dict(config) | {"num_tasks": 1})
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    with pytest.raises(Fault, match="seed: this folder's run has 0, the command says 1"):
        run_in(tmp_path, dict(config) | {"seed": 1, "num_tasks": 1})
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == before


def test_comparison_finds_a_single_changed_bit(uninterrupted, tmp_path):
    import shutil

    import numpy as np

    copy = tmp_path / "copy"
    shutil.copytree(uninterrupted, copy)
    assert differences(copy, uninterrupted) == []
    grid = next(copy.rglob("grid.npy"))
    losses = np.load(grid)
    losses.flat[3] = np.nextafter(losses.flat[3], np.inf)
    np.save(grid, losses)
    assert differences(copy, uninterrupted) == [f"{grid.relative_to(copy)}: other values"]
