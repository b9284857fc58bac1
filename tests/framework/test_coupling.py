"""Correlations against SciPy's, ranks and losses of snapshots against numpy's, and what a run makes of them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.stats
import torch
from runs import TINY, compose, run_in
from summary_runs import end_row
from torch import nn

from taskshift import checkpoint
from taskshift.coupling import coupling_table, points, write_coupling
from taskshift.evaluators.coupling import Coupling
from taskshift.faults import Fault
from taskshift.metrics.coupling import Resampling, average_ranks, correlations, coupling, drop_statistics
from taskshift.pictures import summary
from taskshift.run_folder import read_rows
from tests.framework.measuring import measuring, mlp, snapshots, training_of, written
from tests.metric_names import undocumented, unused


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pairs(seed: int, count: int, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Two series that go together a little; `ties`: rounded, so that values repeat."""
    draw = generator(seed)
    x = torch.randn(count, generator=draw, dtype=torch.float64)
    y = 0.5 * x + torch.randn(count, generator=draw, dtype=torch.float64)
    return (x.round(), y.round()) if kind == "ties" else (x, y)


# -- correlations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [5, 9, 40])
@pytest.mark.parametrize("kind", ["plain", "ties"])
def test_coefficients_are_scipys(seed, count, kind):
    x, y = pairs(seed, count, kind)
    found = coupling(x, y, generator())
    for ours, theirs in ((found.pearson, scipy.stats.pearsonr(x, y)), (found.spearman, scipy.stats.spearmanr(x, y))):
        assert ours.coefficient == pytest.approx(theirs.statistic, rel=1e-12)
    assert found.num_points == count
    assert found.why_none is None


def test_tied_values_share_the_mean_of_their_places():
    values = torch.randint(4, (50, 9), generator=generator()).double()
    np.testing.assert_array_equal(average_ranks(values), scipy.stats.rankdata(values, axis=1))


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_intervals_are_those_of_scipys_bootstrap_up_to_its_draws(name):
    x, y = pairs(3, 12, "plain")
    found = getattr(coupling(x, y, generator(), Resampling(20000, 0.9)), name)
    theirs = scipy.stats.bootstrap(
        (x.numpy(), y.numpy()),
        lambda a, b: getattr(scipy.stats, f"{name}r")(a, b).statistic,
        n_resamples=2000,
        paired=True,
        vectorized=False,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.05)


def test_the_same_generator_gives_the_same_interval_and_another_seed_another():
    x, y = pairs(0, 9, "plain")
    assert coupling(x, y, generator(1)) == coupling(x, y, generator(1))
    assert coupling(x, y, generator(1)).pearson.low != coupling(x, y, generator(2)).pearson.low


def test_what_goes_together_exactly_has_the_coefficient_one_for_sure():
    x = torch.arange(6.0)
    found = coupling(x, -3 * x + 1, generator())
    assert (found.pearson.coefficient, found.pearson.high) == pytest.approx((-1, -1), abs=1e-12)
    assert coupling(x, x.exp(), generator()).spearman.coefficient == 1


@pytest.mark.parametrize("count", [0, 1, 4])
def test_fewer_than_five_points_have_no_coefficient(count):
    found = coupling(torch.arange(float(count)), torch.arange(float(count)), generator())
    assert (found.num_points, found.pearson, found.spearman) == (count, None, None)
    assert found.why_none == f"{count} point{'s' * (count != 1)}: a correlation takes at least 5"


def test_a_constant_series_has_no_coefficient_and_is_named():
    x, constant = torch.arange(6.0), torch.full((6,), 0.1)
    names = ("the drop", "the change")
    assert coupling(constant, x, generator(), names=names).why_none == "the drop is 0.1 at all 6 points"
    assert coupling(x, constant, generator(), names=names).why_none == "the change is 0.1 at all 6 points"
    for count in (6, 7, 9, 11):  # the mean of so many times 0.1 is not 0.1
        assert correlations(torch.full((count,), 0.1, dtype=torch.float64), torch.arange(float(count)).double()).isnan()


def test_points_that_are_not_finite_do_not_count():
    x, y = pairs(0, 9, "plain")
    spoilt = torch.cat([x, torch.tensor([math.nan, 0.0, math.inf])]), torch.cat([y, torch.tensor([0.0, math.nan, 0.0])])
    assert coupling(*spoilt, generator()) == coupling(x, y, generator())


def test_draws_in_which_a_series_is_constant_do_not_count():
    x = torch.tensor([0.0, 0, 0, 0, 1])  # a third of the draws miss the last point
    found = coupling(x, torch.tensor([1.0, 2, 3, 4, 5]), generator())
    assert math.isfinite(found.pearson.low)
    assert found.pearson.low < found.pearson.coefficient <= found.pearson.high


def test_drops_by_hand():
    found = drop_statistics(torch.tensor([10.0, 5.0, 5.0, 10.0]))  # drops ½, 0, −1
    assert found["drop_mean"] == pytest.approx(-1 / 6)
    assert found["drop_std"] == pytest.approx(np.std([0.5, 0, -1], ddof=1))
    assert (found["drop_min"], found["drop_max"]) == (-1, 0.5)
    assert found["drop_gini"] == pytest.approx(2 / 3)
    assert all(math.isnan(value) for value in drop_statistics(torch.tensor([3.0])).values())
    assert math.isnan(drop_statistics(torch.tensor([3.0, 2.0]))["drop_std"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_resamples": 0}, "num_resamples is 0; give at least 1"),
        ({"confidence": 1.0}, "confidence is 1.0; it is a share of the draws"),
        ({"batch_size": 1}, "batch_size is 1; the rank of fewer than 2 examples"),
        ({"approximate_rank_prop": 0.0}, "approximate_rank_prop is 0.0; it is a share"),
    ],
)
def test_options_that_say_nothing_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Coupling(**options)


# -- the evaluator -------------------------------------------------------------------------------------------------


def normed(width: int = 6) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3)).double()


def measured(folder, net=mlp, epochs=8, **options):
    """(findings, measurement) over the snapshots of a small training."""
    evaluator = Coupling(**{"save_plots": False} | options)
    first = measuring(evaluator, folder / "scratch", net())
    paths = snapshots(first, folder / "trajectory", epochs)
    given = {"trajectory": paths, "make_training": lambda seed: training_of(net())}
    measurement = measuring(evaluator, folder / "scratch", first.training.net, **given)
    return evaluator(measurement), measurement


def content_of(findings, folder):
    return json.loads(written(findings, folder / "files")["metrics.json"].read_text())


def by_numpy(net, features, inputs, prop=0.99) -> int:
    """The approximate rank of the outputs of the module called `features`, from numpy's singular values."""
    seen = []
    handle = net.get_submodule(features).register_forward_hook(lambda module, given, outputs: seen.append(outputs))
    with torch.no_grad():
        net(inputs)
    handle.remove()
    energy = np.linalg.svd(seen[0].flatten(1).numpy(), compute_uv=False) ** 2
    return 1 + int((energy.cumsum() < prop * energy.sum() * (1 - 1e-12)).sum())


@pytest.mark.parametrize(("net", "layer"), [(mlp, "0.2"), (normed, "3")])
def test_ranks_and_losses_are_those_of_each_snapshot_with_its_own_buffers(net, layer, tmp_path):
    findings, measurement = measured(tmp_path, net)
    content = content_of(findings, tmp_path)
    inputs, targets = (torch.cat(part) for part in zip(*measurement.batches, strict=True))
    assert content["steps"] == list(range(0, 27, 3))
    for number, snapshot in enumerate(measurement.trajectory):
        one = net().eval()
        one.load_state_dict(checkpoint.load(snapshot))
        assert content["layers"][layer]["approximate_rank"][number] == by_numpy(one, layer, inputs)
        assert content["loss"][number] == pytest.approx(measurement.task.loss(one(inputs), targets).item(), rel=1e-12)


def test_the_numbers_are_scipys_of_the_series_beside_them(tmp_path):
    findings, _ = measured(tmp_path, approximate_rank_prop=0.9, batch_size=30)
    content, found = content_of(findings, tmp_path), findings.scalars
    change = np.diff(content["loss"])
    np.testing.assert_allclose(content["loss_change"], change)
    for row, prefix in [(content["mean"], ""), *((row, f"{layer}/") for layer, row in content["layers"].items())]:
        ranks = np.array(row["approximate_rank"])
        drops = (ranks[:-1] - ranks[1:]) / ranks[:-1]
        np.testing.assert_allclose(row["drops"], drops)
        assert found[f"{prefix}drop_mean"] == pytest.approx(drops.mean())
        if row["why_none"] is None:
            assert found[f"{prefix}pearson"] == pytest.approx(scipy.stats.pearsonr(drops, change).statistic)
            assert found[f"{prefix}spearman"] == pytest.approx(scipy.stats.spearmanr(drops, change).statistic)
    assert content["mean"]["why_none"] is None
    assert found["num_points"] == 8
    assert found["pearson_low"] <= found["pearson"] <= found["pearson_high"]
    assert not [name for name in found if "p_value" in name]  # successive snapshots are no independent points


def test_the_mean_is_over_the_chosen_layers(tmp_path):
    findings, _ = measured(tmp_path, layers="0.*")
    content = content_of(findings, tmp_path)
    rows = [row["approximate_rank"] for row in content["layers"].values()]
    assert len(rows) == 2
    assert content["mean"]["approximate_rank"] == np.mean(rows, axis=0).tolist()
    with pytest.raises(ValueError, match=r"layers='conv\*' matches no layer of this net"):
        measured(tmp_path / "other", layers="conv*")


def test_of_few_snapshots_there_are_drops_but_no_coefficient(tmp_path):
    findings, _ = measured(tmp_path, epochs=4)
    assert findings.scalars["num_points"] == 4
    assert "drop_gini" in findings.scalars
    assert not [name for name in findings.scalars if "pearson" in name or "spearman" in name]
    assert content_of(findings, tmp_path)["mean"]["why_none"] == "4 points: a correlation takes at least 5"


@pytest.mark.parametrize(
    ("phase", "epochs", "sentence"),
    [
        ("end", 0, "Changes take 2 snapshots and this task has 1; raise"),
        ("start", None, "At a task's start there are no snapshots"),
    ],
)
def test_without_snapshots_it_is_left_out_and_says_why(phase, epochs, sentence, tmp_path):
    first = measuring(Coupling(), tmp_path)
    paths = [] if epochs is None else snapshots(first, tmp_path / "trajectory", epochs)
    findings = Coupling()(measuring(Coupling(), tmp_path, first.training.net, phase=phase, trajectory=paths))
    assert not findings.scalars
    assert sentence in written(findings, tmp_path / "files")["LEFT_OUT.txt"].read_text()


def test_twice_the_same_and_the_learner_is_left_alone(tmp_path):
    findings, measurement = measured(tmp_path)
    before, state = checkpoint.cloned(measurement.training.state_dict()), torch.get_rng_state()
    again = Coupling(save_plots=False)(measurement)
    assert again.scalars == findings.scalars
    assert checkpoint.first_difference(before, measurement.training.state_dict()) is None
    assert torch.equal(state, torch.get_rng_state())


def test_a_net_that_diverged_on_the_way_keeps_the_points_before(tmp_path):
    first = measuring(Coupling(), tmp_path / "scratch")
    paths = snapshots(first, tmp_path / "trajectory", 8)
    for path in paths[-2:]:
        state = checkpoint.load(path)
        checkpoint.save(path, {name: torch.full_like(tensor, math.nan) for name, tensor in state.items()})
    findings = Coupling()(measuring(Coupling(), tmp_path / "scratch", first.training.net, trajectory=paths))
    written(findings, tmp_path / "files")
    assert findings.scalars["num_points"] == 6
    assert math.isfinite(findings.scalars["pearson"])
    assert math.isnan(findings.scalars["drop_mean"])


def test_every_number_is_documented_and_every_documented_one_exists(tmp_path):
    names = [f"coupling/{name}" for name in measured(tmp_path)[0].scalars]
    assert undocumented(names) == []
    assert [listed for listed in unused(names) if listed.startswith("coupling/")] == []


def test_the_picture_shows_the_series_and_the_points(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr("taskshift.pictures.coupling.save_figure", lambda path, figure: figures.append(figure))
    findings, _ = measured(tmp_path, save_plots=True)
    content = json.loads(_text(findings, tmp_path))
    findings.artifacts["coupling.png"](tmp_path / "coupling.png")
    ranks, cloud, _ = figures[0].axes
    shown = {handle.get_label(): handle[0].get_ydata().tolist() for handle in ranks.containers}
    assert shown["mean of the layers"] == content["mean"]["approximate_rank"]
    drawn = cloud.collections[0].get_offsets()
    np.testing.assert_allclose(drawn, np.stack([100 * np.array(content["mean"]["drops"]), content["loss_change"]], axis=1))
    assert f"Spearman {findings.scalars['spearman']:.2f} [" in cloud.get_title()
    assert "8 points" in cloud.get_title()


def _text(findings, folder):
    path = folder / "metrics.json"
    findings.artifacts["metrics.json"](path)
    return path.read_text()


# -- over a run's tasks --------------------------------------------------------------------------------------------


def rows_of_tasks(ranks, losses) -> list[dict[str, float]]:
    changes = [
        {"rank/approximate_rank": rank, "rank/a/approximate_rank": 2 * rank, "rank/approximate_rank_drop_gini": 0.5}
        | {"task_last_epoch_loss": loss, "task_last_epoch_accuracy": 1 - loss / 10}
        for rank, loss in zip(ranks, losses, strict=True)
    ]
    return [end_row(task) | change for task, change in enumerate(changes)]


RANKS, LOSSES = [20.0, 18, 19, 14, 12, 13, 9], [0.1, 0.3, 0.2, 0.5, 0.4, 0.8, 0.9]


def test_over_tasks_the_numbers_are_scipys():
    table = coupling_table(rows_of_tasks(RANKS, LOSSES))
    drops = -np.diff(RANKS) / np.array(RANKS[:-1])
    wanted = {"levels": (RANKS, LOSSES), "drops": (drops, np.diff(LOSSES))}
    for kind, (x, y) in wanted.items():
        assert {"rank/approximate_rank", "rank/a/approximate_rank"} <= set(table[kind])
        assert "rank/approximate_rank_drop_gini" not in table[kind]
        found = table[kind]["rank/a/approximate_rank"]["task_last_epoch_loss"]
        assert found["num_points"] == len(x)
        assert found["spearman"]["coefficient"] == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
        assert found["pearson"].keys() == {"coefficient", "low", "high"}
        accuracy = table[kind]["rank/a/approximate_rank"]["task_last_epoch_accuracy"]
        assert accuracy["pearson"]["coefficient"] == pytest.approx(-found["pearson"]["coefficient"])


def test_few_tasks_have_no_coefficient_and_no_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(summary, "save_figure", lambda path, figure: None)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of_tasks(RANKS[:4], LOSSES[:4])))
    table = json.loads(write_coupling(folder).read_text())
    found = table["drops"]["rank/approximate_rank"]["task_last_epoch_loss"]
    assert (found["num_points"], found["pearson"], found["spearman"]) == (3, None, None)
    assert found["why_none"] == "3 points: a correlation takes at least 5"
    assert folder / "summary" / "coupling.png" not in summary.draw_summary(folder)


def test_a_record_without_ranks_says_so():
    rows = [{"task_idx": 0, "task_last_epoch_loss": 0.5}]
    assert coupling_table(rows) == {"why_none": "the record holds no rank: lla.enable_rank=true measures it"}


def test_tasks_that_were_not_analysed_are_passed_over():
    rows = dict(enumerate(rows_of_tasks(RANKS, LOSSES)))
    del rows[2]["rank/approximate_rank"]
    x, y, tasks = points(rows, "drops", "rank/approximate_rank", "task_last_epoch_loss")
    assert tasks == [1, 3, 4, 5, 6]
    assert x[1].item() == pytest.approx((18 - 14) / 18)
    assert y[1].item() == pytest.approx(0.5 - 0.3)


def test_the_picture_over_tasks_has_the_values_and_their_changes(tmp_path, monkeypatch):
    figures = {}
    monkeypatch.setattr(summary, "save_figure", lambda path, figure: figures.setdefault(path.name, figure))
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of_tasks(RANKS, LOSSES)))
    summary.draw_summary(folder)
    clouds = [axes for axes in figures["coupling.png"].axes if axes.get_xlabel()]
    assert [len(axes.collections[0].get_offsets()) for axes in clouds] == [6, 6, 7, 7]
    np.testing.assert_allclose(clouds[2].collections[0].get_offsets(), np.stack([RANKS, LOSSES], axis=1))
    spearman = scipy.stats.spearmanr(RANKS, LOSSES).statistic
    assert f"Spearman {spearman:.2f} [" in clouds[2].get_title()


# -- in a run ------------------------------------------------------------------------------------------------------

ALONE = ("planes", "spectrum", "sam", "units", "weights", "plasticity", "mode_connectivity")
RUN = (*TINY, *(f"lla.enable_{name}=false" for name in ALONE), "run_name=one")


def test_a_run_measures_it_and_correlates_its_tasks(tmp_path):
    options = ("num_tasks=6", "lla.training.max_checkpoints=7", "lla.enable_coupling=true", "lla.logging.save_plots=true")
    folder = run_in(tmp_path, compose(*RUN, *options), summary=True)
    ends = [row for row in read_rows(folder) if "task_last_epoch_loss" in row]
    assert [row["coupling/num_points"] for row in ends] == [6] * 6
    assert (folder / "task_0005_mlp" / "coupling" / "coupling.png").read_bytes().startswith(b"\x89PNG")
    table = json.loads((folder / "summary" / "coupling.json").read_text())
    ranks, losses = ([row[name] for row in ends] for name in ("rank/approximate_rank", "task_last_epoch_loss"))
    found = table["levels"]["rank/approximate_rank"]["task_last_epoch_loss"]
    assert found["pearson"]["coefficient"] == pytest.approx(scipy.stats.pearsonr(ranks, losses).statistic)
    assert (folder / "summary" / "coupling.png").exists()


def test_switched_off_nothing_else_changes(tmp_path):
    found = {}
    for switch in ("true", "false"):
        (tmp_path / switch).mkdir()
        folder = run_in(tmp_path / switch, compose(*RUN, f"lla.enable_coupling={switch}"))
        rows = [
            {name: value for name, value in row.items() if "seconds" not in name and "memory" not in name}
            for row in read_rows(folder)
        ]
        assert any("coupling" in name for row in rows for name in row) == (switch == "true")
        rows = [{name: value for name, value in row.items() if not name.startswith("coupling/")} for row in rows]
        found[switch] = rows, checkpoint.load(folder / "checkpoints" / "task_0001.pt")
    assert found["true"][0] == found["false"][0]
    assert checkpoint.first_difference(found["true"][1], found["false"][1]) is None


def test_a_share_above_one_is_refused_before_the_run(tmp_path):
    with pytest.raises(Fault, match="confidence is 2.0; it is a share of the draws"):
        run_in(tmp_path, compose(*RUN, "lla.coupling.confidence=2.0"))
