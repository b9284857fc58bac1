"""The control net of `plasticity` steps by the run's own program, and learns what it learns eager."""

from __future__ import annotations

import json

import pytest
import torch
from interrupting import Interrupted, interrupt
from measuring import measuring, mlp, trained, training_of, written
from runs import TINY, compose, run_in

from taskshift.compare import differences
from taskshift.evaluators.plasticity import Plasticity
from taskshift.execution import programs
from taskshift.execution.shared import SharedPrograms
from taskshift.learners.noise import Perturb
from taskshift.training import Training


def learner(seed=0):
    torch.manual_seed(seed)
    return training_of(mlp().apply(redrawn), interventions={"perturb": Perturb(0.1)})


def redrawn(module):
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()


def control_rows(tmp_path, prepare):
    """The control's rows, and the training that it was, where the run's own is prepared for its steps in this way."""
    made = []
    evaluator = Plasticity(control=True, batch_size=5)
    measurement = measuring(evaluator, tmp_path, make_training=lambda seed: made.append(learner(seed % 1000)) or made[-1], task=1)
    own = learner()
    object.__setattr__(measurement, "training", own)
    rows = trained(measurement, epochs=3)
    object.__setattr__(measurement, "rows", rows)
    prepare(own, measurement.task, next(measurement.stream.epoch(measurement.task, 0)))
    files = written(evaluator(measurement), tmp_path)
    return json.loads(files["control.json"].read_text()), made[-1]


def alone(own, task, batch):
    own.use_programs(task, batch, compiles=False)


def in_a_lane(own, task, batch):
    own.use_programs(task, batch, compiles=False, shared=SharedPrograms(3), block=4)
    assert own.block == 4


@pytest.mark.parametrize("prepare", [alone, in_a_lane])
def test_the_controls_rows_are_those_of_its_eager_steps(tmp_path, prepare):
    """40 examples in batches of 16: the last of an epoch is another, which no program is for."""
    eager, control = control_rows(tmp_path / "eager", lambda *given: None)
    assert control.is_eager
    rows, control = control_rows(tmp_path / "replay", prepare)
    assert not control.is_eager
    assert control.block == 1
    assert [row.keys() for row in rows] == [row.keys() for row in eager]
    for ours, theirs in zip(rows, eager, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-12)


def test_the_control_of_a_lone_run_takes_the_runs_own_recording(tmp_path, monkeypatch):
    count, recorded = [], programs.recorded
    monkeypatch.setattr(programs, "recorded", lambda *given: count.append(1) or recorded(*given))
    control_rows(tmp_path, alone)
    assert len(count) == 1


def test_a_run_cut_off_beside_its_control_ends_with_the_same_bits(tmp_path, monkeypatch):
    off = [f"lla.enable_{one}=false" for one in ("planes", "spectrum", "sam", "rank", "units", "coupling")]
    words = (*TINY, "run_name=one", "checkpoints.every_seconds=0", "use_wandb=false", "lla.plasticity.control=true", *off)
    config = compose(*words) | {"execution": "replay"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    reference = run_in(whole, config)
    for name, count in (("use_programs_of", 1), ("take", 5)):  # as the control begins, and later between chunks
        with monkeypatch.context() as patch:
            interrupt(patch, Training, name, count)
            with pytest.raises(Interrupted):
                run_in(cut, config)
    assert differences(run_in(cut, config), reference) == []
