"""Barriers against nets mixed by hand; paths left out, fallen back from, taken up again; a run's matrix of barriers."""

from __future__ import annotations

import copy
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from runs import TINY, compose, run_in
from torch import nn

from loss_landscape.paths.curve_fitting import CurveFit
from taskshift import barriers, checkpoint
from taskshift.barriers import evenly
from taskshift.compare import differences
from taskshift.config.build import build_parts
from taskshift.evaluators import mode_connectivity
from taskshift.evaluators.mode_connectivity import ModeConnectivity, connecting_surface
from taskshift.faults import Fault
from taskshift.pictures import summary
from taskshift.run_folder import RunFolder, read_rows
from tests.framework.measuring import measuring, mlp, trained, training_of, written
from tests.metric_names import undocumented, unused

pytestmark = pytest.mark.slow

SMALL = {"curve_points": 9, "opt_steps": 40, "save_plots": False}


def normed(width: int = 6) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3)).double()


def redrawn(net: nn.Module, seed: int) -> nn.Module:
    """The same net with other weights."""
    torch.manual_seed(seed)
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    return net


def saved(folder, net: nn.Module, name: str = "other.pt"):
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.save(folder / name, net.state_dict())
    return folder / name


def with_kept(measurement, **other):
    """The measurement with other nets kept beside it."""
    return replace(measurement, kept=replace(measurement.kept, **other))


def two_nets(folder, evaluator, make=mlp, epochs=40, **given):
    """(measurement of a trained net with another one, trained from another start, as its second run; the other net)."""
    nets = []
    for seed in (1, 2):
        measurement = measuring(evaluator, folder / "scratch", redrawn(make(), seed), **given)
        trained(measurement, epochs)
        nets.append(measurement.training.net)
    given |= {"make_training": lambda seed: training_of(copy.deepcopy(nets[0]))}
    measurement = measuring(evaluator, folder / "scratch", nets[0], **given)
    measurement.scratch.mkdir(parents=True, exist_ok=True)
    return with_kept(measurement, second_run=saved(folder, nets[1])), nets[1]


def mixed(one: nn.Module, other: nn.Module, t: float) -> nn.Module:
    """(1 − t) of the one's parameters with t of the other's."""
    net = copy.deepcopy(one)
    with torch.no_grad():
        for parameter, a, b in zip(net.parameters(), one.parameters(), other.parameters(), strict=True):
            parameter.copy_((1 - t) * a + t * b)
    return net


def losses_by_hand(one: nn.Module, other: nn.Module, task, batches, count: int) -> list[float]:
    """The loss of the mixtures; batch norms take their statistics anew, as PyTorch's own averaging does."""
    examples = sum(len(targets) for _, targets in batches)
    found = []
    for t in np.linspace(0, 1, count):
        net = mixed(one, other, float(t))
        torch.optim.swa_utils.update_bn((inputs for inputs, _ in batches), net)
        net.eval()
        with torch.no_grad():
            found.append(sum(len(targets) * task.loss(net(inputs), targets).item() for inputs, targets in batches) / examples)
    return found


def barrier_by_hand(losses: list[float]) -> float:
    t = np.linspace(0, 1, len(losses))
    return max(np.array(losses) - ((1 - t) * losses[0] + t * losses[-1]))


def content_of(findings, folder):
    return json.loads(written(findings, folder / "files")["metrics.json"].read_text())


# -- the numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [mlp, normed])
def test_the_straight_line_has_the_losses_of_nets_mixed_by_hand(make, tmp_path):
    evaluator = ModeConnectivity(**SMALL)
    measurement, other = two_nets(tmp_path, evaluator, make)
    findings = evaluator(measurement)
    by_hand = losses_by_hand(other, measurement.training.net, measurement.task, measurement.batches, 9)
    content, found = content_of(findings, tmp_path), findings.scalars
    np.testing.assert_allclose(content["losses"]["linear"], by_hand, rtol=1e-9)
    assert found["linear_barrier"] == pytest.approx(barrier_by_hand(by_hand), rel=1e-6, abs=1e-12)
    assert found["linear_highest_loss"] == pytest.approx(max(by_hand))
    assert (found["start_loss"], found["end_loss"]) == pytest.approx((by_hand[0], by_hand[-1]))
    apart = [(a - b).square().sum() for a, b in zip(other.parameters(), measurement.training.net.parameters(), strict=True)]
    assert found["linear_length"] == pytest.approx(math.sqrt(sum(apart).item()))
    assert content["batch_norm"] == ("recompute" if make is normed else "running")
    assert content["start"] == "the second run"


def test_the_curve_joins_the_same_nets_by_a_lower_path(tmp_path):
    evaluator = ModeConnectivity(**SMALL | {"opt_steps": 200, "data_subset_batches": None})
    measurement, _ = two_nets(tmp_path, evaluator)
    findings = evaluator(measurement)
    found, losses = findings.scalars, content_of(findings, tmp_path)["losses"]
    assert found["linear_barrier"] > 0.2
    assert found["curve_barrier"] < 0.2 * found["linear_barrier"]
    assert found["curve_highest_loss"] < 0.5 * found["linear_highest_loss"]
    assert (losses["curve"][0], losses["curve"][-1]) == (losses["linear"][0], losses["linear"][-1])
    assert found["curve_length"] > found["linear_length"]
    assert found["fell_back"] == 0


def test_a_permuted_copy_has_a_barrier_until_it_is_aligned(tmp_path):
    evaluator = ModeConnectivity(**SMALL | {"align": "weights", "use_second_run": False})
    first = measuring(evaluator, tmp_path / "scratch", task=1)
    trained(first, 60)
    net, order = copy.deepcopy(first.training.net), torch.tensor([3, 0, 4, 2, 1])
    with torch.no_grad():
        net[0][1].weight.copy_(net[0][1].weight[order])
        net[0][1].bias.copy_(net[0][1].bias[order])
        net[0][3].weight.copy_(net[0][3].weight[:, order])
    measurement = with_kept(first, earlier={0: saved(tmp_path, net)})
    measurement.scratch.mkdir(parents=True)
    found = evaluator(measurement).scalars
    assert found["linear_barrier"] > 0.01
    assert found["aligned_barrier"] == pytest.approx(0, abs=1e-9)
    assert found["aligned_length"] == pytest.approx(0, abs=1e-9)
    assert found["repaired_barrier"] == pytest.approx(0, abs=1e-9)
    names = [f"mode_connectivity/{name}" for name in found]
    assert undocumented(names) == []
    assert [listed for listed in unused(names) if listed.startswith("mode_connectivity/")] == []


def test_the_bends_are_trained_on_the_first_batches_alone(tmp_path):
    measurement, _ = two_nets(tmp_path, ModeConnectivity())
    assert len(measurement.batches) == 3
    assert [len(list(connecting_surface(measurement, number).objective.batches)) for number in (1, 2, None)] == [1, 2, 3]
    first = connecting_surface(measurement, 1)
    inputs, targets = measurement.batches[0]
    assert first.loss() == pytest.approx(measurement.task.loss(measurement.training.net(inputs), targets).item())


# -- which nets ----------------------------------------------------------------------------------------------------


def test_the_second_run_goes_before_an_earlier_task_unless_told_otherwise(tmp_path):
    nets = {number: saved(tmp_path, redrawn(mlp(), number), f"{number}.pt") for number in (1, 2, 3)}
    starts = []
    for evaluator, given in (
        (ModeConnectivity(**SMALL), {"second_run": nets[3]}),
        (ModeConnectivity(**SMALL, use_second_run=False), {"second_run": nets[3]}),
        (ModeConnectivity(**SMALL), {}),
        (ModeConnectivity(**SMALL, delta=2), {}),
    ):
        measurement = with_kept(measuring(evaluator, tmp_path / "scratch", task=3), earlier={1: nets[1], 2: nets[2]}, **given)
        measurement.scratch.mkdir(parents=True, exist_ok=True)
        content = content_of(evaluator(measurement), tmp_path)
        starts.append((content["start"], content["losses"]["linear"][0]))
        for file in measurement.scratch.iterdir():
            file.unlink()
    assert [name for name, _ in starts] == ["the second run", "the end of task 2", "the end of task 2", "the end of task 1"]
    assert len(set(starts)) == 3


def test_a_checkpoint_of_a_run_is_a_net_too(tmp_path):
    evaluator = ModeConnectivity(**SMALL)
    net = redrawn(mlp(), 2)
    checkpoint.save(tmp_path / "task_0000.pt", {"net": net.state_dict(), "task": 0})
    found = []
    for file in (tmp_path / "task_0000.pt", saved(tmp_path, net)):
        measurement = with_kept(measuring(evaluator, tmp_path / file.stem, task=1), earlier={0: file})
        measurement.scratch.mkdir(parents=True)
        found.append({name: value for name, value in evaluator(measurement).scalars.items() if name != "opt_seconds"})
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("options", "given", "sentence"),
    [
        ({}, {"task": 0}, "Task 0 has no task 1 before it to be connected with."),
        ({"delta": 3}, {"task": 2}, "Task 2 has no task 3 before it to be connected with."),
        ({}, {"task": 3}, "The net at the end of task 2 is no longer there; checkpoints.keep=1 or more keeps it."),
        ({}, {"task": 3, "phase": "start"}, "At a task's start the net is the one that the task before it ended with"),
    ],
)
def test_without_another_net_it_is_left_out_and_says_why(options, given, sentence, tmp_path):
    findings = ModeConnectivity(**options)(measuring(ModeConnectivity(), tmp_path, **given))
    assert not findings.scalars
    assert sentence in written(findings, tmp_path / "files")["LEFT_OUT.txt"].read_text()


@pytest.mark.parametrize("spoilt", ["other", "present"])
def test_a_net_that_diverged_is_left_out(spoilt, tmp_path):
    evaluator = ModeConnectivity(**SMALL)
    nets = {"present": mlp(), "other": redrawn(mlp(), 2)}
    with torch.no_grad():
        nets[spoilt][1].weight.fill_(math.nan)
    measurement = with_kept(measuring(evaluator, tmp_path, nets["present"]), second_run=saved(tmp_path, nets["other"]))
    measurement.scratch.mkdir(parents=True)
    findings = evaluator(measurement)
    assert not findings.scalars
    assert f"The loss of the {spoilt} net is nan" in written(findings, tmp_path / "files")["LEFT_OUT.txt"].read_text()


def test_a_net_of_another_shape_is_refused_by_the_first_name_that_differs(tmp_path):
    evaluator = ModeConnectivity(**SMALL)
    measurement = with_kept(measuring(evaluator, tmp_path), second_run=saved(tmp_path, mlp(width=7)))
    with pytest.raises(ValueError, match=r"other\.pt does not fit the net: its 0\.1\.weight has the shape \[7, 16\]"):
        evaluator(measurement)


# -- fallen back, cut off ------------------------------------------------------------------------------------------


def test_a_fit_over_its_time_ends_on_the_straight_line_and_says_so(tmp_path):
    evaluator = ModeConnectivity(**SMALL | {"max_seconds": 0.0})
    measurement, _ = two_nets(tmp_path, evaluator)
    findings = evaluator(measurement)
    found, content = findings.scalars, content_of(findings, tmp_path)
    assert found["fell_back"] == 1
    assert re.search(r"max_seconds.* of 40 steps, so the curve stays as it was given", content["fell_back"])
    np.testing.assert_allclose(content["losses"]["curve"], content["losses"]["linear"], rtol=1e-9)
    assert found["curve_barrier"] == pytest.approx(found["linear_barrier"])


class Killed(BaseException):
    """Nothing may catch it."""


def killed_at(patch, owner, name: str, count: int) -> None:
    """Let `owner.name` be called `count` times, then raise."""
    original, calls = getattr(owner, name), iter(range(count))

    def fatal(*arguments, **options):
        if next(calls, None) is None:
            raise Killed
        return original(*arguments, **options)

    patch.setattr(owner, name, fatal)


@pytest.mark.parametrize(("owner", "name", "count"), [(CurveFit, "_step", 17), (mode_connectivity, "path_losses", 1)])
def test_cut_off_and_called_again_it_goes_on_to_the_same_bits(owner, name, count, tmp_path, monkeypatch):
    evaluator = ModeConnectivity(**SMALL)
    measurement, _ = two_nets(tmp_path, evaluator)
    with monkeypatch.context() as patch:
        killed_at(patch, owner, name, count)
        with pytest.raises(Killed):
            evaluator(measurement)
    steps, step = [], CurveFit._step
    monkeypatch.setattr(CurveFit, "_step", lambda self, *arguments: (steps.append(arguments[0]), step(self, *arguments)))
    resumed = content_of(evaluator(measurement), tmp_path)
    assert steps == (list(range(17, 40)) if owner is CurveFit else [])
    whole = content_of(evaluator(two_nets(tmp_path / "whole", evaluator)[0]), tmp_path / "whole")
    assert {**resumed, "opt_seconds": 0} == {**whole, "opt_seconds": 0}


def test_twice_the_same_and_the_learner_is_left_alone(tmp_path):
    evaluator = ModeConnectivity(**SMALL, align="activations")
    found = []
    for folder in ("a", "b"):
        measurement, _ = two_nets(tmp_path / folder, evaluator, normed)
        before, state = checkpoint.cloned(measurement.training.state_dict()), torch.get_rng_state()
        found.append(content_of(evaluator(measurement), tmp_path / folder) | {"opt_seconds": 0})
        assert checkpoint.first_difference(before, measurement.training.state_dict()) is None
        assert torch.equal(state, torch.get_rng_state())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"curve_points": 2}, "curve_points is 2; give at least 3"),
        ({"opt_steps": 0}, "opt_steps is 0; give at least 1"),
        ({"delta": 0}, "delta is 0; give at least 1"),
        ({"num_bends": 0}, "num_bends is 0; give at least 1"),
        ({"data_subset_batches": 0}, "data_subset_batches is 0; give at least 1"),
        ({"max_matrix_tasks": 1}, "max_matrix_tasks is 1; give at least 2"),
        ({"lr": 0.0}, "lr is 0.0; give a step size above 0"),
        ({"max_seconds": -1.0}, "max_seconds is -1.0; give 0 or more, or null for no limit"),
    ],
)
def test_options_that_say_nothing_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        ModeConnectivity(**options)


# -- in a run ------------------------------------------------------------------------------------------------------

ALONE = ("planes", "spectrum", "sam", "rank", "units", "weights", "plasticity", "coupling")
ON = ("lla.enable_mode_connectivity=true", "lla.mode_connectivity.curve_points=5", "lla.mode_connectivity.opt_steps=3")
RUN = (*TINY, *(f"lla.enable_{name}=false" for name in ALONE), *ON, "num_tasks=3", "run_name=one", "net.norm=batch")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run with the matrix, and pictures, that nobody disturbed."""
    return run_in(tmp_path_factory.mktemp("whole"), compose(*RUN, "lla.logging.save_plots=true"), summary=True)


def matrix_of(folder):
    return json.loads((folder / "summary" / "barrier_matrix.json").read_text())


def test_a_run_connects_each_task_with_the_one_before_and_keeps_the_pictures(whole):
    ends = [row for row in read_rows(whole) if "task_last_epoch_loss" in row]
    assert ["mode_connectivity/linear_barrier" in row for row in ends] == [False, True, True]
    assert "no task 1 before it" in (whole / "task_0000_mlp" / "mode_connectivity" / "LEFT_OUT.txt").read_text()
    content = json.loads((whole / "task_0002_mlp" / "mode_connectivity" / "metrics.json").read_text())
    assert content["start"] == "the end of task 1"
    assert ends[2]["mode_connectivity/curve_barrier"] == content["curve_barrier"]
    for picture in ("task_0002_mlp/mode_connectivity/curve.png", "summary/barrier_matrix.png"):
        assert (whole / picture).read_bytes().startswith(b"\x89PNG")


def test_the_matrix_has_every_nets_line_to_every_other_on_the_others_data(whole):
    matrix = matrix_of(whole)
    assert matrix["tasks"] == [0, 1, 2]
    barrier, loss, highest = (np.array(matrix[name]) for name in ("barrier", "loss", "highest_loss"))
    np.testing.assert_array_equal(np.load(whole / "summary" / "barrier_matrix.npy"), barrier)
    assert (np.diag(barrier) == 0).all()
    assert (highest >= np.maximum(loss, np.diag(loss))).all()
    content = json.loads((whole / "task_0002_mlp" / "mode_connectivity" / "metrics.json").read_text())
    assert loss[1, 2] == content["start_loss"]  # the present task's net and data, as its evaluator saw them
    assert loss[2, 2] == content["end_loss"]
    assert barrier[1, 2] >= content["linear_barrier"]  # 25 points have those 5 among them


def test_the_matrix_is_that_of_nets_mixed_by_hand(whole):
    matrix, parts, folder = matrix_of(whole), build_parts(compose(*RUN)), RunFolder(whole, "mlp")
    nets = [copy.deepcopy(parts.training.net) for _ in range(3)]
    for number, net in enumerate(nets):
        net.load_state_dict(checkpoint.load(folder.task_checkpoint(number))["net"])
    for start, end in ((0, 1), (2, 0)):
        surface = barriers._surface(parts, folder, end)
        by_hand = losses_by_hand(nets[start], nets[end], parts.stream[end], list(surface.objective.batches), 25)
        assert matrix["barrier"][start][end] == pytest.approx(barrier_by_hand(by_hand), rel=1e-3, abs=1e-6)
        assert matrix["loss"][start][end] == pytest.approx(by_hand[0], rel=1e-5)


def test_the_picture_of_the_matrix_writes_out_its_values(whole, monkeypatch):
    figures = {}
    monkeypatch.setattr(summary, "save_figure", lambda path, figure: figures.setdefault(path.name, figure))
    summary.draw_summary(whole)
    left, right = [axes for axes in figures["barrier_matrix.png"].axes if axes.texts]
    matrix = matrix_of(whole)
    for axes, name in ((left, "barrier"), (right, "loss")):
        assert [text.get_text() for text in axes.texts] == [f"{value:.2g}" for row in matrix[name] for value in row]


@pytest.mark.parametrize(
    ("owner", "name", "count"),
    [(barriers, "barrier", 2), (barriers, "write_json", 4), (CurveFit, "_step", 4)],
)
def test_a_run_that_is_cut_off_ends_with_the_same_bits(owner, name, count, whole, tmp_path):
    config = compose(*RUN)
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, owner, name, count)
        with pytest.raises(Killed):
            run_in(tmp_path, config)
    resumed = run_in(tmp_path, config)
    assert differences(resumed, whole) == []
    assert matrix_of(resumed) == matrix_of(whole)


def test_a_run_that_is_given_more_tasks_measures_the_new_lines_alone_and_says_how_many(whole, tmp_path, caplog):
    config = compose(*RUN)
    folder = run_in(tmp_path, dict(config) | {"num_tasks": 2})
    assert matrix_of(folder)["tasks"] == [0, 1]
    with caplog.at_level("INFO"):
        run_in(tmp_path, config)
    assert "barriers between the tasks' nets: 4 lines of 25 points, about " in caplog.text
    assert matrix_of(folder) == matrix_of(whole)


def test_switched_off_nothing_else_changes_and_there_is_no_matrix(whole, tmp_path):
    folder = run_in(tmp_path, compose(*RUN, "lla.enable_mode_connectivity=false"))
    own = ("mode_connectivity/", "task/seconds", "task/memory_mb")
    rows = [
        [{name: value for name, value in row.items() if not name.startswith(own)} for row in read_rows(one)]
        for one in (folder, whole)
    ]
    assert rows[0] == rows[1]
    latest = [checkpoint.load(one / "checkpoints" / "task_0002.pt") for one in (folder, whole)]
    assert checkpoint.first_difference(*latest) is None
    assert not (folder / "summary").exists()
    without = run_in(tmp_path, compose(*RUN, "run_name=other", "lla.mode_connectivity.matrix=false"))
    assert not (without / "summary").exists()


def test_of_many_tasks_some_are_taken_evenly():
    assert evenly(range(100), 5) == [0, 25, 50, 74, 99]
    assert evenly([2, 5, 7], 24) == [2, 5, 7]


def test_a_delta_of_none_is_refused_before_the_run(tmp_path):
    with pytest.raises(Fault, match="delta is 0; give at least 1"):
        run_in(tmp_path, compose(*RUN, "lla.mode_connectivity.delta=0"))
