"""Each row of the three tables against a made-up case whose answer is known, and "cannot tell" where nothing was measured."""

from __future__ import annotations

import math

import numpy as np
import pytest

from loss_landscape import DirectionInfo, Estimate, Grid, GridInfo
from loss_landscape.interpretation.evidence import Evidence
from loss_landscape.interpretation.hints import QUESTIONS, ROWS, explained_each
from loss_landscape.interpretation.path_shape import PathShape
from loss_landscape.interpretation.terrain import Terrain, highest_on_the_way
from loss_landscape.results.hessian_metrics import HessianMetrics
from loss_landscape.results.info import FloatNoise
from loss_landscape.results.trajectory import PathPoint, Trajectory
from loss_landscape.storage.records import LandscapeRecord

AXIS = np.linspace(-0.1, 0.1, 41)
X, Y = np.meshgrid(AXIS, AXIS, indexing="ij")
U, V = X / 0.1, Y / 0.1  # −1 … 1


def plane(losses: np.ndarray, *, gradient: float = 0.0, noise: float = 1e-9, axis: np.ndarray = AXIS) -> Grid:
    directions = DirectionInfo("random", norms=(1.0, 1.0), origin_norm=10.0, normalization="filter")
    info = GridInfo(directions, float(losses[20, 20]), noise=FloatNoise(noise), extra={"gradient_norm": gradient})
    return Grid(losses, (axis, axis), info)


def path(
    places: np.ndarray, losses: np.ndarray, *, rate: float | None = None, plane_losses: np.ndarray | None = None
) -> Trajectory:
    below = losses if plane_losses is None else plane_losses
    rows = zip(places, losses, below, strict=True)
    points = tuple(
        PathPoint(epoch, tuple(place), 0.1, float(loss), float(under), learning_rate=rate)
        for epoch, (place, loss, under) in enumerate(rows)
    )
    return Trajectory(points, "pca", DirectionInfo("trajectory", norms=(1.0, 1.0), origin_norm=10.0))


def answers(
    grid: Grid | None = None, trajectory: Trajectory | None = None, curvature: HessianMetrics | None = None
) -> dict[str, str]:
    grids = {} if grid is None else {"2d": grid}
    paths = () if trajectory is None else (trajectory,)
    record = LandscapeRecord(grids, paths, () if curvature is None else (curvature,))
    return {hint.row.sight: hint.answer for hint in explained_each(record, record.landscapes)}


BOWL = 0.5 + 0.2 * (U**2 + V**2)
STEPS = np.arange(20)
STRAIGHT = np.stack([1 - STEPS / 19, 0 * STEPS], axis=1)
ZIGZAG = np.stack([1 - STEPS / 19, 0.2 * (-1.0) ** STEPS], axis=1)
SPIRAL = np.stack([0.8**STEPS * np.cos(STEPS), 0.8**STEPS * np.sin(STEPS)], axis=1) * (STEPS < 19)[:, None]
FALLING = np.exp(-STEPS / 8)

CASES = {
    "rugged, many peaks": (answers(plane(1 + 0.3 * np.cos(9 * U) * np.cos(9 * V))), answers(plane(BOWL))),
    "smooth, a single valley": (answers(plane(BOWL)), answers(plane(1 + 0.3 * np.cos(9 * U) * np.cos(9 * V)))),
    "a sharp, narrow minimum": (answers(plane(0.1 + 20 * (U**2 + V**2))), answers(plane(1 + 0.05 * (U**2 + V**2)))),
    "a flat, wide minimum": (answers(plane(1 + 0.05 * (U**2 + V**2), gradient=0.02)), answers(plane(0.1 + 20 * (U**2 + V**2)))),
    "the bottom of a valley": (answers(plane(BOWL)), answers(plane(BOWL + 0.3 * U, gradient=5.0))),
    "on a slope": (answers(plane(BOWL + 0.3 * U, gradient=5.0)), answers(plane(BOWL))),
    "a local minimum, lower areas in sight": (
        answers(plane(1 + np.where(np.hypot(U, V) < 0.4, np.hypot(U, V), 0.4 - 1.5 * np.clip(np.hypot(U, V) - 0.4, 0, 1)))),
        answers(plane(BOWL)),
    ),
    "a plateau everywhere": (answers(plane(2.3 + 1e-5 * U)), answers(plane(BOWL))),
    "a smooth descent": (
        answers(trajectory=path(STRAIGHT, FALLING)),
        answers(trajectory=path(ZIGZAG, 1 + 0.1 * (-1.0) ** STEPS)),
    ),
    "oscillating": (answers(trajectory=path(ZIGZAG, FALLING)), answers(trajectory=path(STRAIGHT, FALLING))),
    "stuck, no movement": (
        answers(trajectory=path(1e-3 * STRAIGHT, 2.3 - 1e-4 * STEPS)),
        answers(trajectory=path(10 * STRAIGHT, FALLING)),
    ),
    "spiralling in": (answers(trajectory=path(SPIRAL, FALLING)), answers(trajectory=path(STRAIGHT, FALLING))),
}
"""Sight → a landscape in which it is there, and one in which it is not."""


def test_every_row_has_a_case():
    assert list(CASES) == [row.sight for row in ROWS]
    assert len(ROWS) == 12
    assert {row.question for row in ROWS} == set(QUESTIONS)


@pytest.mark.parametrize("sight", CASES)
def test_what_is_there_is_seen_and_what_is_not_is_not(sight):
    there, absent = CASES[sight]
    assert there[sight] == "yes"
    assert absent[sight] == "no"


@pytest.mark.parametrize("row", ROWS, ids=[row.sight for row in ROWS])
def test_without_numbers_nothing_can_be_told(row):
    [hint] = [hint for hint in explained_each(LandscapeRecord(), {}) if hint.row is row]
    assert hint.answer == "cannot tell"
    assert hint.evidence
    assert row.caveat
    assert row.settled_by


def test_meanings_are_worded_as_hints():
    """A flat place need not generalise, and lower cells need not mean that it is stuck."""
    meanings = {row.sight: row.meaning for row in ROWS}
    for sight in (
        "a sharp, narrow minimum",
        "a flat, wide minimum",
        "a local minimum, lower areas in sight",
        "a plateau everywhere",
    ):
        assert meanings[sight].startswith("perhaps ")


def test_float_noise_makes_no_minima():
    noisy = 1 + 1e-7 * np.random.default_rng(0).normal(size=U.shape)
    assert answers(plane(noisy, noise=1e-7))["rugged, many peaks"] == "no"
    assert answers(plane(noisy, noise=1e-12))["rugged, many peaks"] == "yes"


def test_cells_that_are_not_finite_are_told():
    losses = BOWL.copy()
    losses[0] = np.inf
    found = answers(plane(losses))
    assert found["smooth, a single valley"] == "cannot tell"
    assert found["rugged, many peaks"] == "cannot tell"
    assert answers(plane(np.full_like(BOWL, np.nan)))["on a slope"] == "cannot tell"


def test_a_range_that_is_too_short_tells_nothing_of_sharpness():
    found = answers(plane(BOWL, axis=AXIS / 2))
    assert found["a sharp, narrow minimum"] == found["a flat, wide minimum"] == "cannot tell"


def test_two_over_the_learning_rate_decides_where_it_is_known():
    slightly = np.stack([1 - STEPS / 19, 0.035 * (-1.0) ** STEPS], axis=1)
    trajectory = path(slightly, FALLING, rate=0.5)
    assert -0.3 < PathShape.of(trajectory).mean_cosine < 0
    assert answers(trajectory=trajectory)["oscillating"] == "cannot tell"
    for sharpness, answer in ((5.0, "yes"), (3.0, "cannot tell")):
        curvature = HessianMetrics((sharpness,), (1e-8,), (True,), 1, Estimate(1.0, 0.0, 1), 2)
        assert answers(trajectory=trajectory, curvature=curvature)["oscillating"] == answer


def test_a_plane_that_tells_another_story_than_its_path_is_told():
    trajectory = path(STRAIGHT, FALLING, plane_losses=FALLING + 0.5)
    texts = [hint.evidence for hint in explained_each(LandscapeRecord(trajectories=(trajectory,)), {})]
    assert any("the plane's losses are off the path's own by" in text for text in texts)
    assert not any(
        "off the path" in hint.evidence for hint in explained_each(LandscapeRecord(trajectories=(path(STRAIGHT, FALLING),)), {})
    )


def test_few_checkpoints_have_no_shape():
    assert PathShape.of(path(STRAIGHT[:3], FALLING[:3])) is None
    assert PathShape.of(path(STRAIGHT, np.where(STEPS == 3, np.nan, FALLING))) is None


# -- the numbers themselves


def test_the_way_that_climbs_least():
    """Around a wall with one gap: over the gap, not over the wall; by hand."""
    losses = np.full((5, 5), 1.0)
    losses[2] = 9.0
    losses[2, 4] = 3.0
    losses[4, 0] = 0.0
    assert highest_on_the_way(losses, (0, 0)) == 3.0
    losses[2] = np.inf
    assert highest_on_the_way(losses, (0, 0)) == math.inf


def test_a_terrain_in_numbers():
    terrain = Terrain.of(plane(BOWL + 0.3 * U, gradient=2.0))
    assert terrain.loss == 0.5
    assert terrain.relief == pytest.approx(1.2 - (0.5 - 0.1125), abs=0.01)
    assert terrain.drop == pytest.approx(0.1125, abs=1e-3), "0.2u² + 0.3u is least at u = −0.75"
    assert terrain.barrier == 0.0
    assert terrain.slope == pytest.approx(2.0 * 0.01 * 10 / 0.5)


def test_a_path_in_numbers():
    shape = PathShape.of(path(STRAIGHT, FALLING))
    assert shape.length == pytest.approx(0.1)
    assert shape.mean_cosine == pytest.approx(1.0)
    assert shape.descending == 1.0
    assert shape.loss_change == pytest.approx(1 - math.exp(-19 / 8))
    assert PathShape.of(path(SPIRAL, FALLING)).winding == pytest.approx(18 / (2 * math.pi), rel=0.1)


def test_evidence_takes_the_nearby_rise_from_any_grid():
    line = Grid(
        BOWL[:, 20], (AXIS,), GridInfo(DirectionInfo("random", norms=(1.0,), origin_norm=10.0, normalization="filter"), 0.5)
    )
    other = Grid(BOWL, (AXIS, AXIS), GridInfo(DirectionInfo("trajectory", norms=(1.0, 1.0)), 0.5))
    assert Evidence.of(LandscapeRecord({"1d": line, "2d": other})).rise == pytest.approx(0.2)
    assert Evidence.of(LandscapeRecord({"2d": other})).rise is None


def test_each_landscape_and_each_path_is_judged_from_its_own_numbers():
    """A bowl beside many peaks, a straight way beside a zigzag: each hint names its source, and has that one's answer."""
    landscapes = {"bowl": plane(BOWL), "peaks": plane(1 + 0.3 * np.cos(9 * U) * np.cos(9 * V))}
    paths = (path(STRAIGHT, FALLING), path(ZIGZAG, FALLING))
    hints = explained_each(LandscapeRecord({"2d": landscapes["peaks"]}, paths), landscapes)
    found = {(hint.row.sight, hint.source): hint.answer for hint in hints}
    assert len(found) == len(hints) == 8 * 2 + 4 * 2
    smooth, oscillating = "smooth, a single valley", "oscillating"
    assert (found[smooth, "bowl"], found[smooth, "peaks"]) == ("yes", "no")
    assert (found[oscillating, "trajectory-1"], found[oscillating, "trajectory-2"]) == ("no", "yes")


def test_without_a_landscape_or_a_path_each_row_is_judged_once():
    hints = explained_each(LandscapeRecord(), {})
    assert [(hint.row, hint.answer, hint.source) for hint in hints] == [(row, "cannot tell", "") for row in ROWS]
