"""The five cards answer with yes, no or "cannot tell", each with the numbers it rests on, and stand whatever is missing."""

import math

import numpy as np
import pytest
from scipy import stats
from summary_runs import write_plane

from loss_landscape.results.grid import Grid
from taskshift.report.cards import cards_of
from taskshift.report.curvature import bears, curvature_card, edge_card
from taskshift.report.features import features_card
from taskshift.report.plasticity import plasticity_card, wilson
from taskshift.report.seed_cards import seed_cards
from taskshift.report.trend import Indicator, Trend, combined
from taskshift.report.trust import PlaneFacts, trust_card

NONE = np.full(50, math.nan)
WOBBLE = (0.004, -0.003, 0.001, -0.004, 0.003, 0.002, -0.002, -0.001)


def tasks_of(**named):
    """Task → its row, from a list of values for each name; "__" stands for "/", None is left out."""
    columns = {name.replace("__", "/"): list(values) for name, values in named.items()}
    count = len(next(iter(columns.values())))
    rows = {task: {name: values[task] for name, values in columns.items() if values[task] is not None} for task in range(count)}
    return {task: row | {"task_idx": task, "task_last_epoch_loss": 0.1} for task, row in rows.items()}


def line(start, slope, count=8):
    return [start + slope * task + WOBBLE[task % 8] for task in range(count)]


# -- trends -------------------------------------------------------------------------------------------------------


def test_a_trend_is_the_regression_of_scipy():
    x, y = np.arange(8), np.array(line(0.9, -0.03))
    trend, fit = Trend.of(x, y, NONE[:8]), stats.linregress(x, y)
    reach = stats.t.ppf(0.975, 6) * fit.stderr
    assert trend.change == pytest.approx(7 * fit.slope)
    assert (trend.low, trend.high) == pytest.approx((7 * (fit.slope - reach), 7 * (fit.slope + reach)))


def test_its_interval_holds_the_change_as_often_as_it_says():
    rng, x, held = np.random.default_rng(0), np.arange(6), 0
    for _ in range(2000):
        trend = Trend.of(x, 0.3 * x + rng.normal(size=6), NONE[:6])
        held += trend.low <= 1.5 <= trend.high
    assert abs(held / 2000 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)


def test_points_on_a_line_are_not_surer_than_each_of_them():
    x, y = np.arange(5), 0.9 - 0.01 * np.arange(5)
    assert Trend.of(x, y, NONE[:5]).high < 0
    reach = stats.t.ppf(0.975, 3) * 0.02 / math.sqrt(10) * 4  # σ/√Σ(x − x̄)² of the slope, over four tasks
    assert Trend.of(x, y, np.full(5, 0.02)).high == pytest.approx(-0.04 + reach)


def test_tasks_that_were_left_out_count_as_such():
    sparse = Indicator("r", "r", -1, "share", 0.0).trend({0: {"r": 1.0}, 1: {}, 2: {"r": 0.8}, 4: {"r": 0.6}, 10: {"r": 0.0}})
    assert (sparse.change, sparse.num_tasks) == (pytest.approx(-1.0), 4)


def test_three_tasks_are_no_trend():
    assert Trend.of([0, 1, 2], np.array([0.9, 0.8, 0.7]), NONE[:3]) is None


def test_values_that_are_not_finite_are_left_out_and_told():
    rank = Indicator("r", "the rank", -1, "factor", 0.1)
    tasks = tasks_of(r=[8.0, math.nan, 8.1, 8.0, math.inf, 7.9])
    assert rank.trend(tasks).num_tasks == 4
    assert rank.in_words(tasks).endswith("; not finite and left out: 2")


BROKEN = {
    "a loss that is lost at the end": (1, [1.0] * 5 + [math.nan] * 3, "yes"),
    "a loss that explodes": (1, [1.0] * 5 + [math.inf], "yes"),
    "a loss that is lost in between": (1, [1.0, 1.0, math.nan, 1.0, 1.0, 1.0], "cannot tell"),
    "a loss that falls beside one that is lost": (1, [8.0, math.nan, 4.0, 2.0, 1.0, 0.5], "cannot tell"),
    "a loss that never was a number": (1, [math.nan] * 6, "cannot tell"),
    "a rank of 0 at the end": (-1, [8.0] * 5 + [0.0], "yes"),
    "a rank of 0 in between": (-1, [8.0, 8.0, 0.0, 8.0, 8.0, 8.0], "cannot tell"),
    "a rank that is lost": (-1, [8.0] * 5 + [math.nan], "cannot tell"),
}


@pytest.mark.parametrize(("worse", "values", "answer"), BROKEN.values(), ids=BROKEN)
def test_where_a_value_is_lost_the_others_do_not_say_no(worse, values, answer):
    assert Indicator("r", "r", worse, "factor", 0.1).answer(tasks_of(r=values)) == answer


def test_an_accuracy_that_is_lost_leaves_the_answer_open():
    assert plasticity_card(tasks_of(plasticity__test_accuracy=[*line(0.9, 0.0), math.nan])).answer == "cannot tell"


def test_a_rank_of_0_is_told():
    card = features_card(tasks_of(rank__effective_rank=[8.0, 0.0, 8.0, 8.0, 8.0, 0.0]))
    assert (card.answer, card.headline) == ("yes", "effective rank 0")
    assert "not above 0 and left out: 2" in card.evidence


@pytest.mark.parametrize(
    ("answers", "answer"),
    [(["yes", "no"], "yes"), (["no", "no"], "no"), (["no", "cannot tell"], "cannot tell"), ([], "cannot tell")],
)
def test_one_that_grows_worse_is_enough(answers, answer):
    assert combined(answers) == answer


# -- plasticity ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accuracies", "answer"),
    [
        (line(0.9, -0.03), "yes"),
        (line(0.7, 0.02), "no"),
        (line(0.9, 0.0), "no"),
        ([0.9, 0.8, 0.7], "cannot tell"),
        ([0.9, 0.5, 0.95, 0.6], "cannot tell"),
        ([0.9], "cannot tell"),
    ],
)
@pytest.mark.parametrize("name", ["plasticity__test_accuracy", "task_last_epoch_accuracy", "test_accuracy"])
def test_falling_accuracy_is_a_loss_of_plasticity(name, accuracies, answer):
    card = plasticity_card(tasks_of(**{name: accuracies}))
    assert card.answer == answer
    assert card.worrying == "yes"
    assert card.series == tuple(accuracies)
    assert f"{100 * accuracies[-1]:.1f} %" in card.headline
    assert "control=true" in card.settled_by


def test_training_that_falls_while_a_test_at_chance_stays_is_a_loss():
    card = plasticity_card(tasks_of(plasticity__test_accuracy=line(0.1, 0.0), task_last_epoch_accuracy=line(0.99, -0.05)))
    assert card.answer == "yes"
    assert card.headline.startswith("training accuracy")
    assert "test accuracy" in card.context


def test_without_accuracy_a_rising_loss_is_one():
    rising = tasks_of(plasticity__test_loss=[math.exp(value) for value in line(0.0, 0.3)])
    assert plasticity_card(rising).answer == "yes"
    assert plasticity_card(rising).logarithmic
    falling = tasks_of(plasticity__test_loss=[math.exp(value) for value in line(0.0, -0.3)])
    assert plasticity_card(falling).answer == "no"


def test_the_number_has_its_error_and_the_examples_are_told():
    found = {"plasticity__test_accuracy": [0.95] * 5, "plasticity__test_accuracy_standard_error": [0.01] * 5}
    card = plasticity_card(tasks_of(**found, plasticity__num_test_examples=[360.0] * 5))
    assert card.headline == "test accuracy 95.0 % ± 1.0"
    low, high = stats.binomtest(342, 360).proportion_ci(method="wilson")
    assert f"over 360 test examples the last task's lies, in 95% of draws, between {100 * low:.1f} % and {100 * high:.1f} %" in (
        card.evidence.lower()
    )


@pytest.mark.parametrize(("right", "count"), [(0, 10), (10, 10), (342, 360), (1, 3)])
def test_wilsons_interval_is_that_of_scipy(right, count):
    assert wilson(right / count, count) == pytest.approx(tuple(stats.binomtest(right, count).proportion_ci(method="wilson")))


@pytest.mark.parametrize(
    ("gaps", "answer"),
    [
        ([0.0, -0.1, -0.12, -0.11, -0.1], "yes"),
        ([0.0, 0.001, -0.002, 0.0, 0.002], "no"),
        ([0.0, -0.1, 0.1, -0.08, 0.06], "cannot tell"),
        ([0.0, *np.linspace(0.05, -0.05, 100).tolist()], "yes"),
        ([0.0, *np.linspace(-0.02, 0.02, 100).tolist()], "no"),
        ([0.0, 0.001, -0.002, 0.0], "cannot tell"),
        ([0.0, -0.1, -0.12], "cannot tell"),
        ([0.0], "cannot tell"),
    ],
)
def test_with_a_control_the_gap_answers(gaps, answer):
    accuracies = line(0.9, -0.05, len(gaps))  # harder tasks: the trend alone would say yes
    card = plasticity_card(tasks_of(plasticity__gap_test_accuracy=gaps, plasticity__test_accuracy=accuracies))
    assert card.answer == answer
    assert card.headline == f"{100 * gaps[-1]:+.1f} points"
    assert card.series == tuple(gaps)


@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_a_gap_that_is_lost_leaves_the_answer_open(lost):
    card = plasticity_card(tasks_of(plasticity__gap_test_accuracy=[0.0, 0.001, -0.002, 0.0, 0.002, lost]))
    assert card.answer == "cannot tell"
    assert "not finite and left out: 1" in card.evidence


def test_a_net_whose_own_loss_is_lost_at_the_end_has_lost_its_plasticity():
    ended = [0.0, -0.3, -0.32, -0.3, -0.31, math.nan]
    card = plasticity_card(tasks_of(plasticity__gap_test_loss=ended, plasticity__test_loss=[1.0] * 5 + [math.nan]))
    assert card.answer == "yes"


def test_gaps_of_one_net_are_said_to_be_no_independent_points():
    assert "no independent points" in plasticity_card(tasks_of(plasticity__gap_test_accuracy=[0.0, -0.1])).limits


def test_a_gap_within_what_the_examples_leave_open_is_no_loss():
    few = {"plasticity__gap_test_accuracy": [0.0, -0.1, -0.1, -0.1], "plasticity__gap_test_accuracy_standard_error": [0.2] * 4}
    assert plasticity_card(tasks_of(**few)).answer == "cannot tell"


# -- curvature and its edge ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("logarithms", "answer"),
    [
        (line(1.0, 0.4), "yes"),
        (line(3.0, -0.4), "no"),
        (line(1.0, 0.0), "no"),
        ([1, 2, 3], "cannot tell"),
        ([1, 4, 0, 5], "cannot tell"),
    ],
)
def test_curvature_grows_where_the_largest_eigenvalue_does(logarithms, answer):
    values = [math.exp(one) for one in logarithms]
    tasks = tasks_of(spectrum__top_eigenvalue_1=values, spectrum__bottom_eigenvalue_1=[-2.0 * value for value in values])
    for row in tasks.values():
        row["spectrum/top_residual_1"] = 1e-3
    card = curvature_card(tasks)
    assert card.answer == answer
    assert card.headline == f"λ₁ {values[-1]:.4g} ± {2e-3 * values[-1]:.2g}"  # the radius is the smallest one's size
    assert card.logarithmic


def test_curvature_that_is_no_number_is_told():
    card = curvature_card(tasks_of(spectrum__top_eigenvalue_1=[1.0, math.nan, math.inf, math.nan]))
    assert (card.answer, card.headline) == ("yes", "λ₁ not a number")
    assert "not finite and left out: 3" in card.evidence.lower()


@pytest.mark.parametrize(
    ("ratio", "answer"), [(0.95, "yes"), (1.3, "yes"), (0.7, "cannot tell"), (0.1, "no"), (math.nan, "cannot tell")]
)
def test_the_edge_is_the_ratio_to_what_the_optimizer_bears(ratio, answer):
    tasks = tasks_of(spectrum__top_eigenvalue_1=[2.0, 20 * ratio], spectrum__sharpness_to_threshold=[0.1, ratio])
    for row in tasks.values():
        row["spectrum/stability_threshold"] = 20.0
    card = edge_card(tasks)
    assert card.answer == answer
    assert card.worrying is None
    assert card.context.startswith("threshold 20, λ₁ ")


def test_an_optimizer_without_a_threshold_cannot_be_at_its_edge():
    card = edge_card(tasks_of(spectrum__top_eigenvalue_1=[2.0, 3.0]))
    assert (card.answer, card.headline, card.context) == ("cannot tell", "no ratio", "no known threshold, λ₁ 3")
    assert "no known threshold" in card.evidence.lower()


def test_a_step_of_length_0_has_no_edge():
    ended = tasks_of(spectrum__top_eigenvalue_1=[2.0], spectrum__sharpness_to_threshold=[0.0])
    ended[0]["spectrum/stability_threshold"] = math.inf
    card = edge_card(ended)
    assert (card.answer, card.context) == ("no", "threshold ∞, λ₁ 2")
    assert "the learning rate was 0" in card.evidence.lower()


def test_a_threshold_of_a_scaled_hessian_is_on_no_axis_of_its_own():
    row = {"spectrum/top_eigenvalue_1": 3.0, "spectrum/stability_threshold": 20.0}
    assert bears(row | {"spectrum/sharpness_to_threshold": 0.15}) == 20.0
    assert bears(row | {"spectrum/sharpness_to_threshold": 0.8}) is None
    assert bears(row) is None


# -- features -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slope", "dormant", "answer"),
    [(-0.2, 0.0, "yes"), (0.1, 0.0, "no"), (0.0, 0.05, "yes"), (0.0, 0.0, "no"), (0.0, None, "no"), (None, 0.05, "yes")],
)
def test_features_collapse_where_rank_falls_or_units_go_to_sleep(slope, dormant, answer):
    found = {}
    if slope is not None:
        found["rank__approximate_rank"] = [50 * math.exp(value) for value in line(0.0, slope)]
    if dormant is not None:
        found["units__dormant_fraction"] = line(0.1, dormant)
    assert features_card(tasks_of(**found)).answer == answer


def test_of_three_tasks_or_a_wild_rank_it_cannot_tell():
    assert features_card(tasks_of(rank__effective_rank=[30.0, 20.0, 10.0])).answer == "cannot tell"
    assert features_card(tasks_of(rank__stable_rank=[30.0, 9.0, 28.0, 12.0])).answer == "cannot tell"


def test_an_analysis_of_every_second_task_is_of_those():
    ranks = [30.0, None, 20.0, None, 14.0, None, 10.0, None]
    card = features_card(tasks_of(rank__approximate_rank=ranks))
    assert (card.answer, card.headline, card.context) == ("yes", "approximate rank 10", "first task 30")


# -- trust --------------------------------------------------------------------------------------------------------

SOUND = PlaneFacts(relief=1.0, num_lost=0, noise=1e-6, sampling=0.01, off=0.02)


@pytest.mark.parametrize(
    ("facts", "answer", "why"),
    [
        (SOUND, "yes", "sampling error of the loss at the centre ± 0.01 at most"),
        (PlaneFacts(1.0, 0, noise=0.2), "no", "below 10 × the float noise: random, task 3"),
        (PlaneFacts(1.0, 4, noise=1e-6), "no", "cells that are not finite: 4, in random, task 3"),
        (PlaneFacts(1.0, 0, 1e-6, sampling=2.0), "no", "lower than the sampling error of the loss: random, task 3"),
        (PlaneFacts(1.0, 0, 1e-6, off=0.6), "no", "off the real one by more than 20% of its range, 60% at most: random, task 3"),
        (PlaneFacts(math.nan, 25, noise=1e-6), "no", "below 10 × the float noise"),
    ],
)
def test_one_doubtful_plane_is_enough(facts, answer, why):
    card = trust_card({}, {("hessian", 0): SOUND, ("random", 3): facts})
    assert card.answer == answer
    assert why.lower() in card.evidence.lower()
    assert card.worrying == "no"


def test_without_any_noise_measured_it_says_so():
    card = trust_card({}, {("random", 0): PlaneFacts(1.0, 0)})
    assert (card.answer, card.headline) == ("cannot tell", "float noise not measured")
    assert "no float noise was measured: random, task 0" in card.evidence.lower()
    assert card.settled_by == "lla.dtype=float64"
    assert trust_card({}, {("random", 0): PlaneFacts(1.0, 0), ("hessian", 1): SOUND}).answer == "cannot tell"


def test_a_plane_in_float64_has_no_float_noise(tmp_path):
    grid = write_plane(tmp_path, 0)
    about = {
        "strategy": "eager",
        "strategy_note": "",
        "chunk": 1,
        "compiled": False,
        "precision": None,
        "weighting": "",
        "versions": {},
    }
    facts = PlaneFacts.of(Grid(grid.losses, grid.coordinates, grid.meta | about | {"dtype": "float64"}))
    assert facts.noise == 0.0
    assert trust_card({}, {("random", 0): facts}).answer == "yes"
    assert PlaneFacts.of(Grid(grid.losses, grid.coordinates, grid.meta | about | {"dtype": "float32"})).noise is None


@pytest.mark.parametrize("noise", [None, 0.0, 1e-6])
def test_a_plane_without_relief_is_a_doubt(noise):
    assert trust_card({}, {("random", 0): PlaneFacts(0.0, 0, noise)}).answer == "no"


def test_eigenpairs_that_did_not_converge_are_a_doubt():
    tasks = tasks_of(spectrum__num_unconverged=[0.0, 2.0])
    card = trust_card(tasks, {("random", 0): SOUND})
    assert (card.answer, card.evidence.split(".")[0]) == ("no", "Eigenpairs that did not converge: 2")


def test_without_planes_there_is_nothing_to_trust():
    card = trust_card({}, {})
    assert (card.answer, card.headline, card.settled_by) == ("cannot tell", "no planes", "lla.enable_planes=true")


def test_the_facts_of_a_plane_are_its_grids(tmp_path):
    path = [
        {"alpha": 0.0, "beta": 0.0, "step": step, "loss": loss, "plane_loss": on}
        for step, loss, on in [(0, 2.0, 1.8), (9, 1.0, 1.1)]
    ]
    grid = write_plane(tmp_path, 0, noise_floor=0.01, trajectory=path, baseline_loss_standard_error=0.25)
    losses = grid.losses.copy()
    losses[0, 0], losses[4, 4] = math.nan, math.inf
    facts = PlaneFacts.of(Grid(losses, grid.coordinates, grid.info))
    finite = losses[np.isfinite(losses)]
    assert facts.relief == pytest.approx(np.quantile(finite, 0.98) - finite.min())
    assert (facts.num_lost, facts.noise, facts.sampling) == (2, 0.01, 0.25)
    assert facts.off == pytest.approx(0.2)


# -- seeds --------------------------------------------------------------------------------------------------------


def card_of_seeds(**columns):
    """The first card of several runs, from a list of a run's values for each name."""
    count = len(next(iter(columns.values())))
    return seed_cards([tasks_of(**{name: runs[run] for name, runs in columns.items()}) for run in range(count)])[0]


def steady(count=8):
    return line(0.9, 0.0, count)


LOST = [*steady(5), math.nan, math.nan, math.nan]


@pytest.mark.parametrize(
    ("runs", "answer", "counted"),
    [
        ([steady()] * 4, "no", "4 of 4 seeds"),
        ([steady()] * 4 + [LOST], "cannot tell", "4 of 5 seeds; the others lack it"),
        ([steady()] * 4 + [[None] * 8], "cannot tell", "4 of 5 seeds; the others lack it"),
        ([LOST] * 4, "cannot tell", "0 of 4 seeds"),
        ([steady(), steady(), steady(5)], "no", "3 of 3 seeds; of 5 to 8 tasks those that all share"),
    ],
)
def test_seeds_that_are_lost_are_told_and_forbid_a_no(runs, answer, counted):
    card = card_of_seeds(task_last_epoch_accuracy=runs)
    assert (card.answer, counted in card.evidence) == (answer, True)
    assert bool(card.settled_by) is (answer == "cannot tell")


def test_seeds_of_unequal_length_are_compared_over_the_tasks_that_all_have():
    falling = [0.9] * 5 + [0.5] * 3
    card = card_of_seeds(plasticity__test_accuracy=[falling, falling, [0.9] * 5])
    assert (card.answer, card.headline) == ("no", "test accuracy 90.0 % ± 0.0")


def test_a_loss_that_is_lost_in_every_seed_is_a_yes():
    assert card_of_seeds(plasticity__test_loss=[[1.0] * 5 + [math.nan]] * 3).answer == "yes"


@pytest.mark.parametrize(
    ("gaps", "answer"),
    [
        ([[0.0, *line(-0.1, 0.0)], [0.0, *line(-0.11, 0.0)], [0.0, *line(-0.09, 0.0)]], "yes"),
        ([[0.0, *line(0.001 * seed, 0.0)] for seed in range(3)], "no"),
        ([[0.0, *line(0.05, -0.0143 - 0.0001 * seed)] for seed in range(3)], "yes"),
        ([[0.0, *line(-0.1, 0.0)], [0.0, *line(0.1, 0.0)], [0.0, *line(0.02, 0.0)]], "cannot tell"),
        ([[0.0, *line(0.0, 0.0)], [0.0, *line(0.0, 0.0)]], "cannot tell"),
    ],
)
def test_the_seeds_gaps_to_a_new_net_answer_where_they_were_measured(gaps, answer):
    harder = [line(0.9, -0.05, 9)] * len(gaps)
    card = card_of_seeds(plasticity__gap_test_accuracy=gaps, task_last_epoch_accuracy=harder)
    assert card.answer == answer
    assert card.headline.startswith("gap in test accuracy ")
    assert card.settled_by == ("more seeds" if answer == "cannot tell" else "")


# -- all of them --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tasks", [{}, tasks_of(epoch_loss=[1.0])])
def test_whatever_is_missing_there_are_five_cards(tasks):
    cards = cards_of(tasks, {})
    assert len({card.question for card in cards}) == 5
    assert {card.answer for card in cards} == {"cannot tell"}
    assert all(card.headline and card.evidence and card.limits for card in cards[1:])
