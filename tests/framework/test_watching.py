"""Watchers: single steps seen from before and after, which learn nothing from being seen."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from interrupting import Interrupted, interrupt
from learning import training_of
from measuring import small_data
from rich.console import Console
from runs import TINY, compose, run_in
from torch import nn
from torch.func import functional_call

from taskshift import checkpoint, trainer
from taskshift.compare import differences
from taskshift.config.build import build_parts
from taskshift.evaluators.edge import Edge
from taskshift.evaluators.evaluator import Settings
from taskshift.evaluators.update_size import UpdateSize
from taskshift.evaluators.watcher import WatchedStep, Watcher
from taskshift.faults import Fault
from taskshift.job import Job
from taskshift.learners.forward import eval_mode, show
from taskshift.pictures import summary
from taskshift.pictures.summary import draw_summary
from taskshift.run_folder import read_quantities, read_rows
from taskshift.shifts.stationary import Stationary
from taskshift.stream import TaskStream
from taskshift.summary import print_table, summary_table
from taskshift.watching import borders

OFF = [f"lla.enable_{name}=false" for name in ("planes", "spectrum", "rank", "units", "weights", "coupling", "sam")]
RUN = (*TINY, *OFF, "run_name=one", "use_wandb=false", "checkpoints.every_seconds=0")
WATCHED = (*RUN, "watch=[update_size,edge]", "watch.update_size.every=3", "watch.edge.every=5")


# -- what they find -----------------------------------------------------------------------------------------------


def net_of(activation=nn.Tanh):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.BatchNorm1d(3), activation(), nn.Linear(3, 3)).double()


def watched_steps(watcher, optimizer, count=2, **given):
    """What a watcher says of the last of some steps; the step; the batch's loss in eval mode as a function of parameters."""
    stream = TaskStream(small_data(), Stationary(0), num_tasks=2, batch_size=16, seed=5)
    training = training_of(net_of(), optimizer, stream, **given)
    task, found = stream[0], {}
    for number, batch in zip(range(count), stream.epoch(task, 0), strict=False):
        before = checkpoint.cloned(training.state)
        training.learn(task, batch)
        step = WatchedStep(
            task,
            number,
            batch,
            training.learner,
            before,
            training.state,
            5,
            Settings(),
            lambda: [stream.gather(task, task.train)],
        )
        show(step.net, before["net"])
        with eval_mode(step.net):
            found = watcher(step)

    twin = net_of().eval()

    def loss(parameters, examples=None):
        inputs, targets = examples or batch
        return nn.functional.cross_entropy(functional_call(twin, {**before["net"], **parameters}, (inputs,)), targets)

    return found, step, loss


def flat(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


def dense(loss, parameters, *examples):
    """The gradient and the Hessian by autograd, of all parameters as one vector."""
    shapes = {name: tensor.shape for name, tensor in parameters.items()}

    def of_vector(vector):
        parts = vector.split([shape.numel() for shape in shapes.values()])
        return loss({name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}, *examples)

    at = flat(parameters)
    return torch.func.grad(of_vector)(at), torch.func.hessian(of_vector)(at)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.5, momentum=0.9, weight_decay=0.1)


def test_a_step_is_as_large_as_its_weights_say_and_its_loss_follows_a_taylor_series():
    found, step, loss = watched_steps(UpdateSize(every=1), sgd)
    names = [name for name, _ in net_of().named_parameters()]
    before = {name: step.before["net"][name] for name in names}
    update = {name: step.after["net"][name] - before[name] for name in names}
    gradient, hessian = dense(loss, before)
    change = loss({name: before[name] + update[name] for name in names}) - loss(before)
    first, second = flat(update) @ gradient, flat(update) @ hessian @ flat(update) / 2
    expected = {
        "norm": flat(update).norm(),
        "relative_norm": flat(update).norm() / flat(before).norm(),
        "1/relative_norm": update["1.weight"].norm() / before["1.weight"].norm(),
        "4/relative_norm": update["4.weight"].norm() / before["4.weight"].norm(),
        "gradient_norm": gradient.norm(),
        "loss_change": change,
        "first_order": first,
        "second_order": second,
        "first_order_share": first / change,
        "both_orders_share": (first + second) / change,
        "sample_plasticity": (-change / loss(before)).clamp(min=0),
    }
    assert {name: value for name, value in found.items() if name != "cosine"} == pytest.approx(
        {name: value.item() for name, value in expected.items()}, rel=1e-7
    )
    assert abs(expected["both_orders_share"] - 1) < abs(expected["first_order_share"] - 1)


def test_the_cosine_is_with_the_update_watched_before():
    watcher, updates = UpdateSize(every=1, second_order=False), []
    assert "cosine" not in watched_steps(watcher, sgd, count=1)[0]
    updates.append(flat(watched_steps(UpdateSize(every=1), sgd, count=1)[1].update))
    found, step, _ = watched_steps(UpdateSize(every=1), sgd, count=2)
    updates.append(flat(step.update))
    assert found["cosine"] == pytest.approx((updates[0] @ updates[1] / updates[0].norm() / updates[1].norm()).item(), rel=1e-12)
    other = UpdateSize(every=1)
    other.load_state_dict(watcher.state_dict())
    assert torch.equal(other.state_dict()["last"], updates[0])


def test_a_step_that_moves_nothing_has_a_size_and_no_share():
    found, *_ = watched_steps(UpdateSize(every=1), lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    assert found["norm"] == found["loss_change"] == found["first_order"] == found["sample_plasticity"] == 0
    assert np.isnan([found["first_order_share"], found["both_orders_share"], found["cosine"]]).all()


def test_sharpness_is_the_largest_eigenvalue_and_that_along_the_gradient():
    found, step, loss = watched_steps(Edge(every=1, tolerance=1e-9), sgd)
    before = {name: step.before["net"][name] for name in step.update}
    everything = step.gather()[0]
    _, hessian = dense(loss, before, everything)
    gradient, own = dense(loss, before)
    top = torch.linalg.eigvalsh(hessian)[-1].item()
    assert found["sharpness"] == pytest.approx(top, rel=1e-8)
    assert found["batch_sharpness"] == pytest.approx((gradient @ own @ gradient / (gradient @ gradient)).item(), rel=1e-7)
    assert found["lr_times_sharpness"] == pytest.approx(0.5 * top, rel=1e-8)
    assert found["stability_threshold"] == pytest.approx(2 * 1.9 / 0.5)
    assert found["sharpness_to_threshold"] == pytest.approx(top / 7.6, rel=1e-8)


def test_adam_s_edge_is_of_its_moments_and_its_rate_before_the_step():
    def halving(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)

    found, step, loss = watched_steps(
        Edge(every=1, tolerance=1e-9), torch.optim.Adam, count=3, scheduler=halving, scheduler_every="step"
    )
    before = {name: step.before["net"][name] for name in step.update}
    _, hessian = dense(loss, before, step.gather()[0])
    squares = flat(step.before["slots"]["exp_avg_sq"])
    diagonal = (1 - 0.9**2) * ((squares / (1 - 0.999**2)).sqrt() + 1e-8)
    scaled = hessian / (diagonal[:, None] * diagonal).sqrt()
    threshold = 2 * 1.9 / 0.1 / (0.001 / 4)  # the third step's rate, not that of the fourth
    assert found["stability_threshold"] == pytest.approx(threshold)
    assert found["sharpness_to_threshold"] == pytest.approx(torch.linalg.eigvalsh(scaled)[-1].item() / threshold, rel=1e-6)
    first, *_ = watched_steps(Edge(every=1), torch.optim.Adam, count=1)
    assert "sharpness_to_threshold" not in first


@pytest.mark.parametrize("make", [UpdateSize, Edge])
def test_a_cadence_is_at_least_one_step(make):
    with pytest.raises(ValueError, match="every is 0; give the steps from one that is watched to the next, at least 1"):
        make(every=0)


# -- within a run -------------------------------------------------------------------------------------------------


class Every(Watcher):
    """A cadence alone."""

    def __call__(self, step):
        return {}


def test_watched_steps_are_alone_in_their_chunk():
    assert borders([Every(5)], 0, 12) == {1, 5, 6, 10, 11}
    assert borders([Every(5)], 6, 10) == set()
    assert borders([Every(5)], 5, 11) == {6, 10}
    assert borders([Every(4), Every(6)], 3, 9) == {4, 5, 6, 7, 8}
    assert borders([Every(1)], 2, 5) == {3, 4}


def by(execution, *words):
    return compose(*words, f"execution={execution}", "log_every=7")


@pytest.fixture(scope="module", params=["eager", "replay"])
def pair(request, tmp_path_factory):
    """The same run with and without watchers."""
    root = tmp_path_factory.mktemp(request.param)
    (root / "with").mkdir()
    (root / "without").mkdir()
    return (
        run_in(root / "with", by(request.param, *WATCHED)),
        run_in(root / "without", by(request.param, *RUN)),
        request.param,
    )


def test_a_watcher_changes_no_bit_of_the_training(pair):
    watched, alone, _ = pair
    one, other = (checkpoint.load(folder / "checkpoints" / "latest.pt") for folder in (watched, alone))
    for part in ("training", "random", "source"):
        assert checkpoint.first_difference(one[part], other[part]) is None
    kept = [row for row in read_rows(watched) if not any(name.startswith(("update_size/", "edge/")) for name in row)]

    def timeless(rows):
        return [{k: v for k, v in row.items() if not k.endswith(("seconds", "memory_mb"))} for row in rows]

    assert timeless(kept) == timeless(read_rows(alone))


def test_watched_steps_have_rows_at_their_cadence(pair):
    rows = [row for row in read_rows(pair[0]) if "update_size/norm" in row or "edge/sharpness" in row]
    assert [row["global_step"] - 1 for row in rows] == [0, 3, 5, 6, 9, 10, 12, 15, 16, 19, 21, 22, 25, 26, 28, 31]
    assert [row["global_step"] - 1 for row in rows if "edge/sharpness" in row] == [0, 5, 10, 15, 16, 21, 26, 31]
    assert [row["global_epoch"] for row in rows if row["task_idx"] == 0] == [0] * 4 + [1] * 4
    assert all("edge/seconds" in row for row in rows if "edge/sharpness" in row)


def test_rows_of_one_kind_never_share_a_step(pair):
    kinds = {"bin_loss": [], "epoch_loss": [], "update_size/norm": []}
    for row in read_rows(pair[0]):
        for name, steps in kinds.items():
            if name in row:
                steps.append(row["global_step"])
    for steps in kinds.values():
        assert len(steps) == len(set(steps)) > 3


@pytest.mark.parametrize("count", [5, *(pytest.param(count, marks=pytest.mark.slow) for count in (2, 11))])
def test_it_goes_on_from_a_checkpoint_with_the_same_bits(pair, count, tmp_path, monkeypatch):
    config = by(pair[2], *WATCHED)
    with monkeypatch.context() as patch:
        interrupt(patch, Job, "save", count)
        with pytest.raises(Interrupted):
            run_in(tmp_path, config)
    assert differences(run_in(tmp_path, config), pair[0]) == []


def test_a_watcher_may_be_left_out_later_and_none_taken_in(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_finish_epoch", lambda *of: (_ for _ in ()).throw(Interrupted()))
        with pytest.raises(Interrupted):
            run_in(tmp_path, compose(*WATCHED))
    with pytest.raises(Fault, match="watch.edge.every: this folder's run has 5, the command says 4"):
        run_in(tmp_path, compose(*WATCHED, "watch.edge.every=4"))
    folder = run_in(tmp_path, compose(*WATCHED, "~watch.edge"))
    rows = read_rows(folder)
    assert max(row["global_step"] for row in rows if "edge/sharpness" in row) < 9
    assert max(row["global_step"] for row in rows if "update_size/norm" in row) == 32
    with pytest.raises(Fault, match="watch.edge._target_: this folder's run has 'no such key'"):
        run_in(tmp_path, compose(*WATCHED))


class Failing(Watcher):
    """Fails from the second step that it sees on."""

    def __call__(self, step):
        if step.number:
            raise ArithmeticError("no number")
        return {"number": 1.0}


class Meddling(Watcher):
    """Moves what the run goes on with."""

    def __call__(self, step):
        next(iter(step.after["net"].values())).add_(1)
        return {}


def with_watcher(monkeypatch, watcher):
    from taskshift import run as running

    def parts(config, data_sets=None):
        return replace(build_parts(config, data_sets), watchers={"mine": watcher})

    monkeypatch.setattr(running, "build_parts", parts)


def test_a_failure_names_the_watcher_and_the_way_on(tmp_path, monkeypatch):
    with_watcher(monkeypatch, Failing(2))
    with pytest.raises(ArithmeticError) as caught:
        run_in(tmp_path, compose(*RUN))
    [note] = caught.value.__notes__
    assert note.startswith("in the watcher mine at step 2 of task 0; to go on without it: ")
    assert note.endswith(" '~watch.mine'")


def test_a_failure_may_be_marked_once_a_task(tmp_path, monkeypatch):
    with_watcher(monkeypatch, Failing(2))
    with pytest.raises(Fault, match="2 evaluations failed, the rest is whole; see task_0000_mlp/mine/FAILED, task_0001_mlp"):
        run_in(tmp_path, compose(*RUN, "lla.on_error=mark"))
    [folder] = tmp_path.glob("outputs/*/mlp/one")
    assert [row["global_step"] for row in read_rows(folder) if "mine/number" in row] == [1, 17]
    for task in ("task_0000_mlp", "task_0001_mlp"):
        assert "ArithmeticError: no number" in (folder / task / "mine" / "FAILED").read_text()
    assert (folder / "FAILED").read_text().count("mine/FAILED") == 2


def test_a_watcher_that_changes_the_training_is_named(tmp_path, monkeypatch):
    with_watcher(monkeypatch, Meddling(2))
    with pytest.raises(RuntimeError, match="the watcher mine changed the training's state.net.*; it may change copies only"):
        run_in(tmp_path, compose(*RUN))


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(Fault, match="watch.rank: this name is taken, its numbers would be called rank/… as others are"):
        compose(*RUN, "+watch.rank={_target_: taskshift.evaluators.edge.Edge}")


# -- one file -----------------------------------------------------------------------------------------------------

PLUGIN = '''
from taskshift.evaluators.watcher import Watcher
from taskshift.quantities import Column, Quantity


class Signs(Watcher):
    """How many weights change their sign."""

    quantities = (
        Quantity("flipped", "weights whose sign changed", "weights", panel="flips", columns=(Column("signs\\nflipped"),)),
        Quantity("<layer>/flipped", "the same for one layer", "weights", panel="flips"),
    )

    def __init__(self, every: int = 4):
        super().__init__(every)

    def __call__(self, step):
        before, after = step.before["net"], step.after["net"]
        flips = {name: float((before[name].sign() != after[name].sign()).sum()) for name in step.update}
        return {"flipped": sum(flips.values())} | {f"{name}/flipped": count for name, count in flips.items()}
'''


@pytest.fixture(scope="module")
def signs(tmp_path_factory):
    """A run that a plugin's watcher looked at; the plugin is gone."""
    root = tmp_path_factory.mktemp("signs")
    (root / "signs_plugin.py").write_text(PLUGIN)
    words = ("plugins=[signs_plugin]", "watch=own", "watch.own_watch._target_=signs_plugin.Signs", "+watch.own_watch.every=6")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(sys, "path", list(sys.path))
        folder = run_in(root, compose(*RUN, *words))
    del sys.modules["signs_plugin"]
    (root / "signs_plugin.py").unlink()
    return folder


def test_a_plugin_s_watcher_is_in_the_record_the_table_and_the_quantities(signs):
    found = [row for row in read_rows(signs) if "own_watch/flipped" in row]
    assert [row["global_step"] for row in found] == [1, 7, 13, 17, 23, 29]
    assert [row["own_watch/flipped"] for row in summary_table(read_rows(signs), read_quantities(signs))] == [
        found[2]["own_watch/flipped"],
        found[5]["own_watch/flipped"],
    ]
    assert read_quantities(signs).unit("own_watch/head.weight/flipped", of_classes=True) == "weights"
    console = Console(file=io.StringIO(), width=120)
    print_table(signs, console)
    assert "flipped" in console.file.getvalue()
    assert json.loads((signs / "quantities.json").read_text())["quantities"][-2]["pattern"] == "own_watch/flipped"


def test_a_plugin_s_watcher_has_a_panel_over_steps(signs, monkeypatch):
    drawn = {}
    monkeypatch.setattr(summary, "save_figure", lambda path, figure: drawn.setdefault(path.name, figure))
    draw_summary(signs)
    [axes] = drawn["own_watch.png"].axes
    assert (axes.get_title(), axes.get_xlabel()) == ("flips", "step (tasks 0–1)")
    handles, labels = axes.get_legend_handles_labels()
    assert set(labels) == {name for name, _ in net_names(signs)} | {"flipped"}
    logged = [row["own_watch/flipped"] for row in read_rows(signs) if "own_watch/flipped" in row]
    [whole] = [handle for handle, label in zip(handles, labels, strict=True) if label == "flipped"]
    np.testing.assert_array_equal(whole[0].get_xdata(), [1, 7, 13, 17, 23, 29])
    np.testing.assert_array_equal(whole[0].get_ydata(), logged)
    assert [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2] == [16]


def net_names(folder):
    return [(name, tensor) for name, tensor in checkpoint.load(folder / "checkpoints" / "initial.pt").items()]
