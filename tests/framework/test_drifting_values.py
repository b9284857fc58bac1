"""Values that wander, keep their order, their gaps and their bounds."""

from __future__ import annotations

import math

import pytest
import torch

from taskshift.data.synthetic_images import synthetic_images
from taskshift.shifts.cumulative import Cumulative
from taskshift.shifts.drifting_values import DriftingValues, into_bounds, pushed_apart, spaced


@pytest.fixture(scope="module")
def data():
    return synthetic_images(num_classes=10, side=4, train_size=20, test_size=10)


def test_values_start_at_the_class_numbers(data):
    assert DriftingValues(0, shift_first_task=False).values(data, 0) == [float(c) for c in range(10)]
    assert DriftingValues(0).values(data, 0) == DriftingValues(0, shift_first_task=False).values(data, 1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("settings", [{}, {"drift_std_dev": 1.0}, {"drift_std_dev": 5.0, "value_bounds": (-3.0, 3.0)}])
def test_order_gaps_and_bounds_hold_for_ever(data, seed, settings):
    shift = DriftingValues(seed, **settings)
    low, high = shift.value_bounds
    for index in range(300):
        values = shift.values(data, index)
        assert all(right - left >= 0.2 - 1e-9 for left, right in zip(values, values[1:], strict=False)), index
        assert low - 1e-9 <= values[0]
        assert values[-1] <= high + 1e-9


def test_where_nothing_is_close_a_step_is_normal(data):
    """Steps of 1800 entries: mean and variance within four standard errors."""
    shift = DriftingValues(0, drift_std_dev=0.001)
    values = torch.tensor([shift.values(data, index) for index in range(181)], dtype=torch.float64)
    steps = (values[1:] - values[:-1]) / 0.001
    assert abs(steps.mean()) < 4 / math.sqrt(1800)
    assert abs(steps.var() - 1) < 4 * math.sqrt(2 / 1800)


def test_going_back_gives_the_same_bits(data):
    onwards = DriftingValues(2)
    values = [onwards.values(data, index) for index in range(40)]
    jumping = DriftingValues(2)
    for index in (39, 5, 20, 0):
        torch.rand(3)
        assert jumping.values(data, index) == values[index]


def test_two_close_values_are_pushed_apart_by_the_formula():
    """One sweep moves each by ½ (overlap + gap) · strength."""
    gap, strength = 0.2, 0.5
    once = 0.5 * (0.1 + gap) * strength
    assert pushed_apart([0.0, 0.1], gap, strength) == pytest.approx([-once, 0.1 + once])
    assert pushed_apart([0.0, 0.3], gap, strength) == [0.0, 0.3]


def test_what_stays_too_close_is_spaced():
    assert spaced([3.0, 1.0, 1.1], 0.2) == pytest.approx([1.0, 1.2, 3.0])


def test_squeezing_keeps_the_gaps():
    squeezed = into_bounds([-10.0, -9.8, 10.0], 0.2, (-1.0, 1.0))
    assert squeezed == pytest.approx([-1.0, -0.8, 1.0])
    assert into_bounds([5.0, 6.0], 0.2, (-1.0, 1.5)) == pytest.approx([0.5, 1.5])


def test_classes_that_do_not_fit_are_refused(data):
    with pytest.raises(ValueError, match=r"min_gap is 5.0, so the 10 classes of synthetic_images do not fit into value_bounds"):
        DriftingValues(0, min_gap=5.0).num_tasks(data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drift_std_dev": -1.0}, "drift_std_dev is -1.0; it must be 0 or more"),
        ({"min_gap": float("nan")}, "min_gap is nan"),
        ({"value_bounds": (2.0, 1.0)}, r"value_bounds is \[2.0, 1.0\]; the first must be smaller"),
    ],
)
def test_bad_values_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        DriftingValues(0, **settings)


def test_there_is_no_accuracy(data):
    assert DriftingValues(0).task(data, 0).metrics == {}


def test_cumulative_keeps_one_state_and_steps_as_few_times_as_it_can():
    steps = []
    state = Cumulative(0, lambda before, number: steps.append(number) or before + number)
    assert [state(3), state(3), state(5)] == [6, 6, 15]
    assert steps == [1, 2, 3, 4, 5]
    assert state(2) == 3
    assert steps[5:] == [1, 2], "going back starts from the first"
