"""Snapshots are spread over the whole task, start and end included."""

import pytest

from taskshift import trajectory


@pytest.mark.parametrize("num_steps", [1, 2, 5, 45, 450, 9999])
@pytest.mark.parametrize("max_points", [2, 3, 10])
def test_start_and_end_are_among_evenly_spread_points(num_steps, max_points):
    steps = sorted(trajectory.steps(num_steps, max_points))
    assert len(steps) == min(max_points, num_steps + 1)
    assert steps[0] == 0
    assert steps[-1] == num_steps
    gaps = [b - a for a, b in zip(steps, steps[1:], strict=False)]
    assert max(gaps) - min(gaps) <= 1, "the predecessor kept the last few of many"


def test_one_point_is_the_end():
    assert trajectory.steps(45, 1) == {45}
