"""The cards of one landscape, and the sentences beside its pictures, judge by one rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loss_landscape.page.figures import plane_sentence
from loss_landscape.page.landscape import landscape_page
from loss_landscape.page.trust import trust_card
from loss_landscape.results.estimate import Estimate
from loss_landscape.results.grid import Grid
from loss_landscape.results.hessian_metrics import HessianMetrics
from loss_landscape.results.info import DirectionInfo, FloatNoise, GridInfo, StrategyInfo
from loss_landscape.results.trajectory import PathPoint, Trajectory
from loss_landscape.storage.records import LandscapeRecord
from loss_landscape.viewing.colour_scale import ColourScale
from loss_landscape.viewing.labels import notes_on

FLOAT64 = StrategyInfo("eager", "", 1, False, None, "float64", "", {})
FLOAT32 = replace(FLOAT64, dtype="float32")
BFLOAT16 = replace(FLOAT64, precision="bfloat16")

METRICS = HessianMetrics((1.0, -4.0), (0.1, 0.02), (True, True), 1, Estimate(1.0, 0.0, 1), 2)
"""The most negative eigenvalue is the larger, so that residuals are relative to it."""

PATH = Trajectory((PathPoint(0, (0.0, 0.0), 0.0, 1.0, 1.0, learning_rate=0.5),), "pca", DirectionInfo("trajectory"))

AXIS = np.linspace(-1.0, 1.0, 5)


def grid_of(relief: float, **info) -> Grid:
    """A bowl of that relief."""
    bowl = np.add.outer(AXIS**2, AXIS**2) / 2
    return Grid(relief * bowl, (AXIS, AXIS), GridInfo(**info))


@pytest.mark.parametrize(("relief", "is_rounding"), [(9.5, True), (10.0, False), (10.5, False)])
def test_from_ten_times_the_noise_on_a_relief_is_more_than_rounding(relief, is_rounding):
    grid = grid_of(relief, noise=FloatNoise(1.0))
    assert trust_card([("2d grid", grid)]).answer == ("no" if is_rounding else "yes")
    assert ("mostly rounding" in plane_sentence(grid)) is is_rounding
    assert any("mostly rounding" in note for note in notes_on(grid, ColourScale.of(grid.losses))) is is_rounding


@pytest.mark.parametrize(("count", "said"), [(1, "1 batch"), (2, "2 batches"), (None, "")])
def test_the_batches_of_a_landscape_are_counted(count, said):
    [run] = landscape_page(LandscapeRecord({"2d": grid_of(1.0, extra={"num_batches": count})})).runs
    assert run.facts == said


def test_an_eigenvalues_error_is_relative_to_the_largest_of_either_sign():
    [run] = landscape_page(LandscapeRecord({"2d": grid_of(1.0)}, (PATH,), (METRICS,))).runs
    assert run.moments[0].spectrum.errors == pytest.approx((0.4, 0.08))
    [edge] = [card for card in run.cards if "edge of stability" in card.question]
    assert (edge.answer, edge.evidence.split(",")[0]) == ("no", "λ_max is 1 ± 0.4")


@pytest.mark.parametrize(
    ("relief", "evaluation", "answer", "said"),
    [
        (1.0, FLOAT64, "yes", "no float noise to speak of"),
        (0.0, FLOAT64, "no", "no float noise to speak of"),
        (1.0, FLOAT32, "cannot tell", "its float noise was not measured"),
        (1.0, BFLOAT16, "cannot tell", "its float noise was not measured"),
        (1.0, None, "cannot tell", "its float noise was not measured"),
    ],
)
def test_losses_in_float64_have_no_noise_and_others_one_that_is_to_be_measured(relief, evaluation, answer, said):
    grid = grid_of(relief, evaluation=evaluation)
    assert trust_card([("2d grid", grid)]).answer == answer
    assert said in plane_sentence(grid)


def test_a_grid_of_unknown_noise_leaves_the_answer_open_and_is_named():
    measured, unknown = grid_of(1.0, noise=FloatNoise(1e-6)), grid_of(1.0)
    card = trust_card([("1d grid", measured), ("2d grid", unknown)])
    assert (card.answer, card.evidence.split(". ")[-1]) == ("cannot tell", "Not known is the float noise of: 2d grid.")
    assert trust_card([("1d grid", grid_of(1.0, noise=FloatNoise(0.5))), ("2d grid", unknown)]).answer == "no"


def test_every_landscape_is_judged_and_what_would_worry_comes_first():
    """A line with many peaks beside a smooth plane: the table has both by name, and the card says what the line shows."""
    waves = np.linspace(-1.0, 1.0, 81)
    line = Grid(1 + np.cos(20 * waves), (waves,), GridInfo(baseline_loss=2.0, noise=FloatNoise(1e-6)))
    plane = grid_of(1.0, baseline_loss=0.0, noise=FloatNoise(1e-6))
    [run] = landscape_page(LandscapeRecord({"1d": line, "2d": plane})).runs
    rows = {(row[0], row[1]): row[2] for row in run.tables[0].rows}
    assert (rows["rugged, many peaks", "line"], rows["rugged, many peaks", "plane"]) == ("yes", "no")
    assert rows["smooth, a single valley", "plane"] == "yes"
    hard = run.cards[0]
    assert (hard.answer, hard.headline) == ("yes", "rugged, many peaks")
    assert hard.evidence.startswith("Looked for: rugged, many peaks. Line: minima deeper than")


def test_a_database_has_every_landscape_judged_and_its_cards_go_by_those_that_are_shown(tmp_path):
    """The older line has many peaks, the newer one none."""
    waves = np.linspace(-1.0, 1.0, 81)
    lines = [
        Grid(losses, (waves,), GridInfo(baseline_loss=2.0, noise=FloatNoise(1e-6)))
        for losses in (1 + np.cos(20 * waves), waves**2)
    ]
    record = LandscapeRecord({"1d": lines[1]}, kept={"line-1": lines[0], "line-2": lines[1]})
    [run] = landscape_page(record).runs
    rows = {(row[0], row[1]): row[2] for row in run.tables[0].rows}
    assert (rows["rugged, many peaks", "line-1"], rows["rugged, many peaks", "line-2"]) == ("yes", "no")
    assert (run.cards[0].answer, run.cards[0].headline) == ("no", "smooth, a single valley")


def test_of_two_paths_the_one_that_oscillates_is_told():
    straight = [(-1.0 + 0.1 * step, 0.0) for step in range(11)]
    zigzag = [(-1.0 + 0.01 * step, (-1.0) ** step) for step in range(11)]
    losses = np.linspace(2.0, 1.0, 11)

    def path(name, places):
        points = (
            PathPoint(at, place, 0.0, float(loss), float(loss))
            for at, (place, loss) in enumerate(zip(places, losses, strict=True))
        )
        return Trajectory(tuple(points), "pca", DirectionInfo("trajectory", norms=(1.0, 1.0), origin_norm=10.0), name)

    [run] = landscape_page(LandscapeRecord(trajectories=(path("sgd", straight), path("other", zigzag)))).runs
    smooth = run.cards[2]
    assert (smooth.question, smooth.answer, smooth.headline) == ("Was training smooth?", "no", "oscillating")
    assert "Other-2: successive steps" in smooth.evidence
