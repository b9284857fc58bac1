"""Paired differences and bootstrap intervals, against closed forms and scipy."""

import io
import itertools
import math

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from sweep_runs import write_sweep

from taskshift.faults import Fault
from taskshift.sweeps.bootstrap import mean_interval
from taskshift.sweeps.paired import compare, compare_in
from taskshift.sweeps.records import read_sweeps

NOISE = np.random.default_rng(3).normal(size=20)
METRIC = "task_last_epoch_accuracy"


def accuracy(overrides, task):
    """l2 is better by 0.1 + 0.01 · seed, whatever the task; seeds differ by far more than that."""
    seed = int(overrides["seed"])
    gain = {"backprop": 0.0, "l2": 0.1 + 0.01 * seed, "cbp": math.nan}[overrides["learner"]]
    return NOISE[seed] + gain + 10 * task


def comparison(folder, between="learner=backprop,l2", at="last"):
    [one], chosen = compare(read_sweeps([folder]), between, METRIC, at)
    return one, chosen


def test_differences_are_taken_within_seeds(tmp_path):
    grid = {"learner": ["l2", "backprop"], "seed": [str(seed) for seed in range(5)]}
    one, chosen = comparison(write_sweep(tmp_path / "sweep", grid, accuracy))
    np.testing.assert_allclose(sorted(one.differences), [0.1, 0.11, 0.12, 0.13, 0.14], rtol=1e-9)
    assert (chosen.task, one.base, one.other, one.num_unpaired) == (2, "backprop", "l2", 0)
    assert one.mean == pytest.approx(0.12)


def test_the_t_interval_is_scipys(tmp_path):
    grid = {"learner": ["l2", "backprop"], "seed": [str(seed) for seed in range(7)]}
    one, _ = comparison(write_sweep(tmp_path / "sweep", grid, accuracy))
    expected = stats.ttest_1samp(one.differences, 0.0).confidence_interval(0.95)
    assert one.student() == pytest.approx((expected.low, expected.high), rel=1e-10)


def test_the_bootstrap_interval_is_scipys_within_its_own_noise():
    sample = np.random.default_rng(0).gamma(2.0, size=25)
    low, high = mean_interval(sample[:, None])
    expected = stats.bootstrap((sample,), np.mean, method="percentile", n_resamples=50_000, rng=1).confidence_interval
    tolerance = 0.03 * (expected.high - expected.low)  # an end's standard error with 10 000 draws is 1.2 % of the length
    assert [low[0], high[0]] == pytest.approx([expected.low, expected.high], abs=tolerance)


def test_the_bootstrap_interval_of_five_runs_is_that_of_all_their_draws():
    sample = np.array([0.0, 1.0, 3.0, 7.0, 20.0])
    every_draw = np.array([np.mean(draw) for draw in itertools.product(sample, repeat=5)])
    exact = np.quantile(every_draw, (0.025, 0.975))
    low, high = mean_interval(sample[:, None])
    assert [low[0], high[0]] == pytest.approx(exact, abs=0.4)  # the draws' means lie 0.2 apart there


def test_of_three_runs_the_interval_is_their_range_and_covers_three_quarters():
    """P(all three equal) = 1/27 > 0.025, so the ends are the extremes, which miss a median with probability 2 · 2⁻³."""
    samples = np.random.default_rng(1).normal(size=(3, 2000))
    low, high = mean_interval(samples)
    np.testing.assert_allclose([low, high], [samples.min(axis=0), samples.max(axis=0)])
    covered = ((low < 0) & (high > 0)).mean()
    assert covered == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 2000))


def test_columns_share_their_draws_and_calls_repeat():
    values = np.random.default_rng(2).normal(size=(6, 1)) + np.arange(700.0)  # more than are resampled at once
    low, high = mean_interval(values)
    np.testing.assert_allclose(high - low, (high - low)[0], rtol=1e-6)
    np.testing.assert_array_equal(mean_interval(values), (low, high))


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_pairs_have_no_interval_and_are_told(tmp_path, count):
    grid = {"learner": ["l2", "backprop"], "seed": [str(seed) for seed in range(count)]}
    one, _ = comparison(write_sweep(tmp_path / "sweep", grid, accuracy))
    assert (one.bootstrap(), one.student()) == (None, None)
    said = printed(tmp_path / "sweep")
    assert f"{count} pair{'s' if count > 1 else ''}, too few for an interval, which takes 3; run more seeds" in said


def test_pairs_are_alike_in_every_other_override(tmp_path):
    grid = {"learner": ["l2", "backprop"], "seed": ["0", "1"], "net.width": ["8", "16"]}

    def wide(overrides, task):
        return accuracy(overrides, task) + int(overrides["net.width"])

    skipped = ["learner=l2 seed=1 net.width=16"]
    one, _ = comparison(write_sweep(tmp_path / "sweep", grid, wide, skip=skipped))
    np.testing.assert_allclose(sorted(one.differences), [0.1, 0.1, 0.11], rtol=1e-9)
    assert one.num_unpaired == 1
    assert "1 run has no twin" in printed(tmp_path / "sweep")


def test_differences_that_are_not_finite_are_counted(tmp_path):
    grid = {"learner": ["cbp", "backprop"], "seed": ["0", "1"]}
    one, _ = comparison(write_sweep(tmp_path / "sweep", grid, accuracy), "learner=backprop,cbp")
    assert (len(one.differences), one.num_lost, math.isnan(one.mean)) == (0, 2, True)


def test_each_further_value_is_compared_with_the_first_at_the_task_asked_for(tmp_path):
    grid = {"net.width": ["8", "16", "1e2"], "seed": ["0", "1", "2"]}
    write_sweep(tmp_path / "sweep", grid, lambda overrides, task: float(overrides["net.width"]) * (1 + task))
    comparisons, chosen = compare(read_sweeps([tmp_path / "sweep"]), "net.width=8,100,16", METRIC, "1")
    assert chosen.task == 1
    assert [(one.base, one.other, one.mean) for one in comparisons] == [(8, 100, 184), (8, 16, 16)]


def test_the_table(tmp_path):
    grid = {"learner": ["l2", "backprop"], "seed": [str(seed) for seed in range(5)]}
    write_sweep(tmp_path / "sweep", grid, accuracy)
    lines = printed(tmp_path / "sweep").splitlines()
    assert lines[0].startswith("task_last_epoch_accuracy at task 2, paired differences")
    assert lines[2].split()[:6] == ["l2", "−", "backprop", "5", "+0.12", "+0.108"]


@pytest.mark.parametrize(
    ("between", "sentence"),
    [
        ("learner=l2", "--between learner=l2: expected an override and two or more of its values, such as learner=backprop,l2"),
        ("learner=l2,l3", "--between learner=l2,l3: no run has learner=l3; there are backprop, l2"),
        ("lerner=l2,l3", "lerner: no override that this sweep varies; did you mean learner? it varies learner or seed"),
    ],
)
def test_bad_values_are_a_sentence(tmp_path, between, sentence):
    write_sweep(tmp_path / "sweep", {"learner": ["l2", "backprop"], "seed": ["0"]}, accuracy)
    with pytest.raises(Fault) as fault:
        compare(read_sweeps([tmp_path / "sweep"]), between, METRIC, "last")
    assert str(fault.value) == sentence


def test_a_task_that_no_run_has_reached(tmp_path):
    write_sweep(tmp_path / "sweep", {"learner": ["l2", "backprop"], "seed": ["0"]}, accuracy)
    with pytest.raises(Fault, match=f"--at 5: no run has logged {METRIC} at task 5; the furthest that has it is at task 2"):
        comparison(tmp_path / "sweep", at="5")


def printed(folder):
    console = Console(width=200, record=True, file=io.StringIO())
    compare_in(folder, "learner=backprop,l2", METRIC, "last", console)
    return console.export_text()
