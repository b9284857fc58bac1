"""Paired differences and their t intervals, against closed forms and scipy."""

import io
import math

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from sweep_runs import write_sweep

from taskshift.faults import Fault
from taskshift.sweeps.intervals import mean_interval, p_value
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
    assert (chosen.tasks, one.base, one.other, one.num_unpaired) == ([2], "backprop", "l2", 0)
    assert one.mean == pytest.approx(0.12)


def test_the_t_interval_is_scipys(tmp_path):
    grid = {"learner": ["l2", "backprop"], "seed": [str(seed) for seed in range(7)]}
    one, _ = comparison(write_sweep(tmp_path / "sweep", grid, accuracy))
    expected = stats.ttest_1samp(one.differences, 0.0).confidence_interval(0.95)
    assert one.interval() == pytest.approx((expected.low, expected.high), rel=1e-10)


@pytest.mark.parametrize("count", [3, 5, 10, 30])
def test_the_interval_covers_what_it_says(count):
    """Of 20 000 samples the covered share has a standard error of 0.15 percent."""
    low, high = mean_interval(np.random.default_rng(count).normal(size=(count, 20_000)))
    assert ((low < 0) & (high > 0)).mean() == pytest.approx(0.95, abs=0.007)


def test_the_p_value_is_scipys():
    differences = np.random.default_rng(4).normal(0.4, size=9)
    assert p_value(differences) == pytest.approx(stats.ttest_1samp(differences, 0.0).pvalue, rel=1e-10)


def test_differences_that_are_all_alike_are_no_luck():
    assert (p_value(np.full(4, 0.5)), p_value(np.zeros(4))) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("at", "words", "mean"),
    [
        ("mean", "in the mean over 3 tasks, 0 to 2", 2),
        ("last:2", "in the mean over 2 tasks, 1 to 2", 2.5),
        ("first:2", "in the mean over 2 tasks, 0 to 1", 1.5),
    ],
)
def test_a_mean_over_tasks(tmp_path, at, words, mean):
    grid = {"net.width": ["0", "1"], "seed": ["0", "1", "2"]}
    write_sweep(
        tmp_path / "sweep", grid, lambda overrides, task: float(overrides["net.width"]) * (1 + task), skip=["net.width=1 seed=2"]
    )
    [one], chosen = compare(read_sweeps([tmp_path / "sweep"]), "net.width=0,1", METRIC, at)
    assert (chosen.words, one.base_mean, one.other_mean, one.mean) == (words, 0, mean, mean)
    assert one.num_unpaired == 1


def test_more_tasks_than_there_are(tmp_path):
    write_sweep(tmp_path / "sweep", {"learner": ["l2", "backprop"], "seed": ["0"]}, accuracy)
    with pytest.raises(Fault, match="--at last:4: the runs have it at 3 tasks; give last:3 at most, or mean"):
        comparison(tmp_path / "sweep", at="last:4")


def test_a_difference_that_so_few_pairs_cannot_show_is_called_so(tmp_path):
    grid = {"learner": ["l2", "backprop"], "seed": ["0", "1", "2"]}
    gains = {"0": -1.0, "1": 0.5, "2": 1.0}
    write_sweep(tmp_path / "sweep", grid, lambda overrides, task: gains[overrides["seed"]] * (overrides["learner"] == "l2"))
    reach = stats.t.ppf(0.975, 2) * np.std([*gains.values()], ddof=1) / math.sqrt(3)
    said = (
        f"l2 − backprop: too few pairs to tell: the interval holds 0, and of 3 pairs only a mean beyond ±{reach:.2g} would show"
    )
    assert said in " ".join(printed(tmp_path / "sweep").split())


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_pairs_have_no_interval_and_are_told(tmp_path, count):
    grid = {"learner": ["l2", "backprop"], "seed": [str(seed) for seed in range(count)]}
    one, _ = comparison(write_sweep(tmp_path / "sweep", grid, accuracy))
    assert one.interval() is None
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
    assert chosen.tasks == [1]
    assert [(one.base, one.other, one.mean) for one in comparisons] == [(8, 100, 184), (8, 16, 16)]


def test_the_table(tmp_path):
    grid = {"learner": ["l2", "backprop"], "seed": [str(seed) for seed in range(5)]}
    write_sweep(tmp_path / "sweep", grid, accuracy)
    lines = printed(tmp_path / "sweep").splitlines()
    assert lines[0].startswith("task_last_epoch_accuracy at task 2, paired differences")
    base, other = NOISE[:5].mean() + 20, NOISE[:5].mean() + 20.12
    low, high = (
        0.12 - (reach := stats.t.ppf(0.975, 4) * np.std([0.1, 0.11, 0.12, 0.13, 0.14], ddof=1) / math.sqrt(5)),
        0.12 + reach,
    )
    words = f"l2 − backprop 5 {other:.4g} − {base:.4g} +0.12 {low:+.4g} … {high:+.4g}"
    assert " ".join(lines[2].split()).startswith(words)


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
