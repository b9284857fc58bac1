"""Backprop loses plasticity on slowly-changing regression, and continual backprop keeps more of it: 20 paired runs."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from taskshift.sweeps.paired import compare
from taskshift.sweeps.records import read_sweeps
from taskshift.sweeps.series import at_task

ROOT = Path(__file__).parents[2]
WORDS = ("experiment=slowly_changing_regression", "recorder=none", "use_wandb=false", "num_threads=1", "lla.every=30")
SWEEP = ("--multirun", "learner=backprop,cbp", "seed=range(20)", "num_tasks=30", "sweep_name=kept")
METRIC = "task_last_epoch_loss"  # a task has one epoch of 10 000 steps: its mean error online


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    command = [sys.executable, str(ROOT / "train.py"), *SWEEP, *WORDS]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return read_sweeps(list(folder.glob("outputs/*/sweeps/kept")))


@pytest.mark.slow
def test_continual_backprop_is_better_after_many_tasks(records):
    [cbp], _ = compare(records, "learner=backprop,cbp", METRIC, "last:10")
    assert len(cbp.differences) == 20
    assert cbp.interval()[1] < 0


@pytest.mark.slow
def test_backprop_gets_worse_with_the_tasks_and_cbp_less_so(records):
    lost = {}
    for learner in ("backprop", "cbp"):
        runs = [record for record in records if record.overrides["learner"] == learner]
        early = np.mean([at_task(runs, METRIC, str(task)).values for task in range(1, 6)], axis=0)
        lost[learner] = np.asarray(at_task(runs, METRIC, "last:10").values) - early
    standard_error = lost["backprop"].std(ddof=1) / len(lost["backprop"]) ** 0.5
    assert lost["backprop"].mean() > 3 * standard_error
    assert lost["backprop"].mean() > 2 * lost["cbp"].mean()
