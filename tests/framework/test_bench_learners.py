"""`scripts/bench_learners.py`: what an intervention cannot do without, counted by hand, and its section on a page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import bench_learners

from taskshift.learners.interventions import AfterStep

COUNT = 784 * 100 + 100 + 2 * (100 * 100 + 100) + 100 * 10 + 10
"""Parameters of 784-100-100-100-10."""


@pytest.mark.parametrize(
    ("name", "moved", "numbers"),
    [
        ("weight_decay", 0, 0),
        ("weight_clipping", 0, 0),
        ("normalize_and_project", 4 * 4, 0),  # four norms, read
        ("shrink_and_perturb", 2 * 4 * COUNT, COUNT),  # noise, written and read
        ("hare_and_tortoise", 2 * 4 * COUNT + 8, 0),  # the tortoise, and a count of epochs, read
    ],
)
def test_the_least_that_is_moved_and_drawn(name, moved, numbers):
    least = bench_learners.least_of(bench_learners.training_of(name, 16), 16)
    assert (least.bytes, least.numbers) == (moved, numbers)


def test_features_are_read_once():
    """Of redo: 300 activities of 16 examples, beside a running sum for each unit and two counts."""
    least = bench_learners.least_of(bench_learners.training_of("redo", 16), 16)
    assert 4 * 300 * 16 < least.bytes < 4 * 300 * (16 + 8)


@pytest.mark.slow
def test_learners_are_those_that_act_after_steps():
    names = sorted(path.stem for path in Path("conf/learner").glob("*.yaml") if path.stem != "own")
    learners = {name: bench_learners.learner_of(name) for name in names}
    acting = [name for name in names if any(isinstance(part, AfterStep) for part in learners[name].interventions.values())]
    assert acting == list(bench_learners.LEARNERS)


def test_a_section_takes_the_place_of_the_last_one(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n## One\n\nwords\n")
    bench_learners.put_section(page, "first")
    bench_learners.put_section(page, "second")
    assert page.read_text() == f"# Page\n\n## One\n\nwords\n\n{bench_learners.HEADING}\n\nsecond\n"
    page.write_text(page.read_text() + "\n## Two\n\nmore\n")
    bench_learners.put_section(page, "third")
    assert page.read_text() == f"# Page\n\n## One\n\nwords\n\n{bench_learners.HEADING}\n\nthird\n\n## Two\n\nmore\n"
