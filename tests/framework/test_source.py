"""Where batches come from, whatever they are made of; an environment from a command to a resumed run."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from interrupting import Interrupted, interrupt
from rich.console import Console
from runs import TINY, compose, run_in
from torch import nn
from toy_environment import Ring

from scripts.metrics_page import of_sources
from taskshift import checkpoint
from taskshift.analysis import Analysis
from taskshift.compare import differences
from taskshift.config.build import build_parts
from taskshift.evaluators.evaluator import Evaluator, Findings
from taskshift.faults import Fault
from taskshift.job import Job
from taskshift.pictures import summary
from taskshift.pictures.summary import draw_summary
from taskshift.run_folder import read_quantities, read_rows
from taskshift.shifts.source import StreamSettings
from taskshift.summary import print_table, summary_table

HERE = Path(__file__).parent
WORDS = (
    *TINY, "run_name=one", "data=none", "plugins=[toy_environment]", "task_shift_mode=own",
    "task_shift._target_=toy_environment.Ring", "batch_size=3", "checkpoints.every_seconds=0", "learner.optimizer.lr=0.3",
    "lla.plasticity.control=true", "log_every=4", "lla.enable_planes=false", "lla.enable_sam=false", "lla.enable_coupling=false",
)  # fmt: skip


class Always(nn.Module):
    """A net that likes one action best, wherever it stands."""

    def __init__(self, action):
        super().__init__()
        self.values = nn.functional.one_hot(torch.tensor(action), 2).float()

    def forward(self, inputs):
        return self.values.expand(len(inputs), 2)


def taking(action):
    return SimpleNamespace(net=Always(action))


def ring(**given):
    return Ring(StreamSettings(num_tasks=3, batch_size=2, seed=0), **given)


def places(source, actor):
    return [batch.inputs.argmax(dim=1).tolist() for batch in source.epoch(source[0], 0, actor=actor)]


def test_an_environment_goes_where_the_learner_sends_it():
    assert places(ring(exploration=0.0, num_steps=4), taking(1)) == [[0, 1], [1, 2], [2, 3], [3, 4]]
    assert places(ring(exploration=0.0, num_steps=4), taking(0)) == [[0, 1], [5, 0], [4, 5], [3, 4]]


def test_each_batch_is_made_when_the_one_before_was_learned_from():
    source, actor = ring(exploration=0.0, num_steps=4), taking(1)
    batches, seen = source.epoch(source[0], 0, actor=actor), []
    for number in range(4):
        actor.net = Always(number % 2)
        seen.append(next(batches).inputs.argmax(dim=1).tolist())
    assert seen == [[0, 1], [5, 0], [0, 1], [5, 0]]
    assert source.chunk_length == 1


def test_apart_another_learner_leaves_the_run_where_it_is():
    source = ring()
    before = checkpoint.cloned(source.state_dict())
    assert len(list(source.apart().epoch(source[0], 0, actor=taking(1)))) == 9
    assert checkpoint.first_difference(before, source.state_dict()) is None
    list(source.epoch(source[0], 0, actor=taking(1)))
    assert checkpoint.first_difference(before, source.state_dict()) is not None


def test_examples_by_index_are_the_same_at_each_call():
    source = ring()
    inputs, targets = source.gather(source[1], torch.tensor([7, 6]))  # place 3; the pay is at place 4
    assert inputs.argmax(dim=1).tolist() == [3, 3]
    assert targets.tolist() == [[1, 1], [0, 0]]
    assert [len(batch.targets) for batch in source.in_batches(source[0], source[0].test, 5)] == [5, 5, 2]
    assert len(source.in_batches(source[0], source[0].test, 5)[1:]) == 2


def test_tasks_are_a_sequence():
    source = ring()
    assert [task.index for task in source] == [0, 1, 2]
    assert [task.index for task in source[1:]] == [1, 2]
    with pytest.raises(IndexError, match="task 3 was asked for; the stream has tasks 0 to 2"):
        source[3]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return run_in(tmp_path_factory.mktemp("uninterrupted"), compose(*WORDS))


def test_a_run_learns_from_an_environment(uninterrupted):
    rows = read_rows(uninterrupted)
    last = [row for row in rows if "test_return" in row][-1]
    parts = build_parts(compose(*WORDS))
    parts.training.net.load_state_dict(checkpoint.load(uninterrupted / "checkpoints" / "task_0001.pt")["net"])
    assert last["test_return"] == parts.stream.scores(parts.stream[1], parts.training.net)["return"]
    assert "epoch_accuracy" not in last
    assert {"spectrum/trace", "plasticity/control_test_loss"} <= rows[-1].keys()
    assert checkpoint.load(uninterrupted / "checkpoints" / "latest.pt")["source"]["num_taken"] == 2 * 2 * 9


def test_what_an_environment_judges_by_is_declared_drawn_and_printed(uninterrupted, monkeypatch):
    rows, said = read_rows(uninterrupted), read_quantities(uninterrupted)
    assert said.unit("test_return", of_classes=False) == "pays"
    returns = [row["test_return"] for row in rows if "test_return" in row]
    assert [row["test_return"] for row in summary_table(rows, said)] == [returns[1], returns[3]]
    console = Console(file=io.StringIO(), width=200)
    print_table(uninterrupted, console)
    assert "return" in console.file.getvalue()
    drawn = {}
    monkeypatch.setattr(summary, "save_figure", lambda path, figure: drawn.setdefault(path.name, figure))
    draw_summary(uninterrupted)
    [axes] = drawn["scores.png"].axes
    assert (axes.get_title(), axes.get_xlabel()) == ("return of the best actions", "epoch (tasks 0–1)")
    assert list(axes.lines[0].get_ydata()) == returns


def test_what_the_modes_judge_by_is_in_the_table_of_metrics(tmp_path, monkeypatch):
    folder = tmp_path / "task_shift_mode"
    folder.mkdir()
    (folder / "ring.yaml").write_text("task_shift:\n  _target_: toy_environment.Ring\n")
    monkeypatch.setattr("scripts.metrics_page.resolve", lambda path, wanted, where: {"toy_environment.Ring": Ring}[path])
    assert [(one.pattern, one.unit) for one in of_sources(tmp_path)] == [("test_return", "pays")]


class Wanderer(Evaluator):
    """Rolls out the run's own environment."""

    def __call__(self, measurement):
        next(measurement.stream.epoch(measurement.task, 0, actor=measurement.training))
        return Findings({})


def test_an_evaluator_that_rolls_the_run_s_own_environment_out_is_named(tmp_path):
    parts = build_parts(compose(*WORDS))
    before = checkpoint.cloned(parts.stream.state_dict())
    checkpoint.save(tmp_path / "initial.pt", parts.training.net.state_dict())
    analysis = Analysis(
        replace(parts, evaluators={"wanderer": Wanderer()}),
        parts.stream[0],
        "start",
        tmp_path,
        tmp_path / "eigenpairs.pt",
        tmp_path / "initial.pt",
    )
    with pytest.raises(RuntimeError, match=r"the evaluator wanderer changed the source's \S+; it may roll out a copy only"):
        analysis.run()
    assert checkpoint.first_difference(before, parts.stream.state_dict()) is None


@pytest.mark.parametrize("count", [3, 7, 16])
def test_an_environment_goes_on_from_a_checkpoint_with_the_same_bits(count, uninterrupted, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, Job, "save", count)
        with pytest.raises(Interrupted):
            run_in(tmp_path, compose(*WORDS))
    assert differences(run_in(tmp_path, compose(*WORDS)), uninterrupted) == []


def test_an_environment_killed_for_real(uninterrupted, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(compose(*WORDS)))
    shutil.copy(HERE / "toy_environment.py", tmp_path)
    command = [sys.executable, str(HERE / "killed_run.py"), "taskshift.training:Training.learn", "13", "after", "config.json"]
    killed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert differences(run_in(tmp_path, compose(*WORDS)), uninterrupted) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("data=digits",), "data: own makes its own examples; give data=none"),
        (("validation.size=3",), "validation.size=3: own has no data set to take it from; give null"),
        (
            ("task_shift._target_=toy_environment.ActionValueMSE",),
            "task_shift._target_=toy_environment.ActionValueMSE: expected a subclass of "
            "taskshift.shifts.task.TaskShift or taskshift.shifts.source.Source",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(words, sentence):
    with pytest.raises(Fault) as caught:
        build_parts(compose(*WORDS, *words))
    assert caught.value.sentences == (sentence,)


def test_a_shift_without_data_is_refused():
    with pytest.raises(Fault, match="^data=none: permuted shows the examples of a data set; choose one, such as data=digits$"):
        build_parts(compose(*TINY, "data=none"))
