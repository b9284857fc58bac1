"""Grids that are cut off, run out of memory, take too long, or can't be evaluated the fast way."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nets import assert_leaves_net_untouched, mlp
from surfaces import batch, held_surface, quadratic, surface_of
from torch import Tensor, nn

from loss_landscape import (
    Checkpointing,
    Evaluation,
    Grid,
    LossSurface,
    Shard,
    checkpointing,
    evaluate_grid,
    progress,
    random_directions,
)
from loss_landscape.grids.cell_order import CellOrder
from loss_landscape.grids.partial_grid import PartialGrid
from loss_landscape.surface.plane import Plane
from loss_landscape.surface.strategy import EvaluationStrategy


class Interrupted(Exception):
    pass


@pytest.fixture
def calls(monkeypatch):
    """Watches the calls of `Plane.evaluate` : `stop_after` raises at a later one, `counts` has their cells."""
    return Calls(monkeypatch)


class Calls:
    def __init__(self, monkeypatch):
        self.counts, self.left = [], None
        original = Plane.evaluate

        def watched(plane, coordinates, *arguments):
            if self.left is not None:
                if self.left == 0:
                    raise Interrupted
                self.left -= 1
            self.counts.append(len(coordinates))
            return original(plane, coordinates, *arguments)

        monkeypatch.setattr(Plane, "evaluate", watched)

    def stop_after(self, number: int | None) -> None:
        self.left = number
        self.counts.clear()


def smooth_surface() -> LossSurface:
    torch.manual_seed(0)
    return surface_of(mlp(width=12))


KINDS = {
    "loss": lambda surface, file: evaluate_grid(
        surface, random_directions(surface), 33, evaluation=Evaluation(chunk=16), checkpointing=Checkpointing(file)
    ),
    "tolerance": lambda surface, file: evaluate_grid(
        surface,
        random_directions(surface),
        41,
        tolerance=0.01,
        evaluation=Evaluation(chunk=16),
        checkpointing=Checkpointing(file),
    ),
    "sam": lambda surface, file: evaluate_grid(
        surface, random_directions(surface), 31, rho=0.1, checkpointing=Checkpointing(file)
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_a_grid_cut_off_anywhere_goes_on_with_the_same_bits(tmp_path: Path, calls, kind, seed):
    surface, file = smooth_surface(), tmp_path / "plane.partial"
    whole = KINDS[kind](surface, None)
    total = len(calls.counts)
    calls.stop_after(int(torch.randint(1, total, (1,), generator=torch.Generator().manual_seed(seed))))
    with pytest.raises(Interrupted):
        KINDS[kind](surface, file)
    calls.stop_after(None)
    resumed = KINDS[kind](surface, file)
    assert np.array_equal(resumed.losses, whole.losses)
    assert np.array_equal(resumed.evaluated, whole.evaluated)
    assert resumed.evaluated.all() == (kind != "tolerance")
    assert {**resumed.meta, "seconds": 0} == {**whole.meta, "seconds": 0}
    assert list(tmp_path.iterdir()) == []


def test_what_is_finished_is_not_evaluated_again(tmp_path: Path, calls):
    surface, file = smooth_surface(), tmp_path / "plane.partial"
    axes = random_directions(surface)
    calls.stop_after(2 + 30)  # the first chunk and the plain cells it is judged by, then 30 chunks
    with pytest.raises(Interrupted):
        evaluate_grid(surface, axes, 33, evaluation=Evaluation(chunk=16), checkpointing=Checkpointing(file))
    calls.stop_after(None)
    evaluate_grid(surface, axes, 33, evaluation=Evaluation(chunk=16), checkpointing=Checkpointing(file))
    *chunks, checked, judged = calls.counts  # at the end some are checked in float64, and some by the plain loop
    assert sum(chunks) == 33 * 33 - 31 * 16
    assert (checked, judged) == (4, 8)


def test_an_unfinished_grid_is_a_coarse_picture_of_the_whole(tmp_path: Path, calls):
    surface, file = smooth_surface(), tmp_path / "plane.partial"
    axes = random_directions(surface)
    calls.stop_after(2 + 7)
    with pytest.raises(Interrupted):
        evaluate_grid(surface, axes, 41, evaluation=Evaluation(chunk=16), checkpointing=Checkpointing(file))
    calls.stop_after(None)
    with np.load(file) as stored:
        coarse = stored["values"].reshape(41, 41)[::4, ::4]
    assert np.isfinite(coarse).all()
    np.testing.assert_allclose(coarse, evaluate_grid(surface, axes, 11).losses, rtol=1e-5, atol=1e-6)


def test_a_grid_that_was_cut_off_while_its_path_was_judged_starts_again(tmp_path: Path, calls):
    surface, file = smooth_surface(), tmp_path / "plane.partial"
    calls.stop_after(1)
    with pytest.raises(Interrupted):
        KINDS["loss"](surface, file)
    assert not file.exists()


def test_a_resumed_grid_keeps_the_stored_chunk_and_path(tmp_path: Path, calls):
    surface, file = smooth_surface(), tmp_path / "plane.partial"
    axes = random_directions(surface)
    calls.stop_after(4)
    with pytest.raises(Interrupted):
        evaluate_grid(surface, axes, 21, evaluation=Evaluation(chunk=8), checkpointing=Checkpointing(file))
    calls.stop_after(None)
    assert evaluate_grid(surface, axes, 21, checkpointing=Checkpointing(file)).info.evaluation.chunk == 8


def test_a_tolerance_makes_no_other_grid_of_what_is_evaluated(tmp_path: Path, calls):
    """The same cells in the same chunks: a grid with a tolerance may go on where an exact one was cut off."""
    surface, file = smooth_surface(), tmp_path / "plane.partial"
    axes = random_directions(surface)
    exact = evaluate_grid(surface, axes, 41, evaluation=Evaluation(chunk=16))
    rough = evaluate_grid(surface, axes, 41, tolerance=0.01, evaluation=Evaluation(chunk=16))
    assert np.array_equal(rough.losses[rough.evaluated], exact.losses[rough.evaluated])
    calls.stop_after(60)
    with pytest.raises(Interrupted):
        evaluate_grid(surface, axes, 41, evaluation=Evaluation(chunk=16), checkpointing=Checkpointing(file))
    calls.stop_after(None)
    resumed = evaluate_grid(surface, axes, 41, tolerance=0.01, evaluation=Evaluation(chunk=16), checkpointing=Checkpointing(file))
    assert np.array_equal(resumed.losses, rough.losses)


@pytest.mark.parametrize("shard", [None, Shard(1, 2)])
def test_a_surface_with_the_same_loss_at_the_origin_is_another_one(tmp_path: Path, calls, shard):
    torch.manual_seed(0)
    net, file = mlp(width=12), tmp_path / "plane.partial"
    surface, held = surface_of(net), held_surface(net)
    axes, options = random_directions(surface), {"resolution": 21, "evaluation": Evaluation(chunk=8)}
    calls.stop_after(7)
    with pytest.raises(Interrupted):
        evaluate_grid(surface, axes, **options, checkpointing=Checkpointing(file, shard))
    calls.stop_after(None)
    assert held.loss() == surface.loss()
    expected = evaluate_grid(held, axes, **options)
    assert np.array_equal(evaluate_grid(held, axes, **options, checkpointing=Checkpointing(file)).losses, expected.losses)


@pytest.mark.parametrize("change", ["net", "axes", "span", "precision", "rho"])
def test_a_partial_file_of_another_grid_is_not_used(tmp_path: Path, calls, change):
    surface, file = smooth_surface(), tmp_path / "plane.partial"
    calls.stop_after(4)
    with pytest.raises(Interrupted):
        evaluate_grid(surface, random_directions(surface), 21, evaluation=Evaluation(chunk=8), checkpointing=Checkpointing(file))
    calls.stop_after(None)
    other = surface_of(mlp(width=12)) if change == "net" else surface
    axes = random_directions(other, generator=torch.Generator().manual_seed(int(change == "axes")))
    options = {"span": (-1, 0.5) if change == "span" else (-1, 1), "rho": 0.0 if change == "rho" else None}
    options["evaluation"] = Evaluation(chunk=8, precision="bfloat16" if change == "precision" else None)
    expected = evaluate_grid(other, axes, 21, **options)
    assert np.array_equal(evaluate_grid(other, axes, 21, **options, checkpointing=Checkpointing(file)).losses, expected.losses)


def test_finished_chunks_are_saved_by_the_clock(tmp_path: Path, monkeypatch):
    """A killed process runs no `finally`."""
    monkeypatch.setattr(checkpointing, "SECONDS_BETWEEN_SAVES", 0.0)
    surface, file, seen = smooth_surface(), tmp_path / "plane.partial", []
    original = Plane.evaluate

    def watching(*arguments, **options):
        seen.append(file.exists())
        return original(*arguments, **options)

    monkeypatch.setattr(Plane, "evaluate", watching)
    evaluate_grid(surface, random_directions(surface), 21, evaluation=Evaluation(chunk=64), checkpointing=Checkpointing(file))
    assert seen == [False, False, *[True] * (len(seen) - 2)]
    assert len(seen) > 4


def test_losses_of_zero_or_less_count_as_done(tmp_path: Path, calls):
    """A sentinel value in place of a status computes them again for ever, or never."""
    surface, file = quadratic([0.0, -2.0]), tmp_path / "plane.partial"
    axes = tuple(torch.eye(2, dtype=torch.float64))
    calls.stop_after(3)  # of 16 cells, the 3 that are judged, another 16
    with pytest.raises(Interrupted):
        evaluate_grid(surface, axes, 9, evaluation=Evaluation(chunk=16), checkpointing=Checkpointing(file))
    calls.stop_after(None)
    evaluate_grid(surface, axes, 9, evaluation=Evaluation(chunk=16), checkpointing=Checkpointing(file))
    assert sum(calls.counts) == 81 - 32 + 4  # one in 25 is judged by the plain loop at the end


# Running out of memory


def out_of_memory_above(monkeypatch, most: int) -> list[int]:
    """`Plane.evaluate` can't take more than `most` cells at a time by the traced graph; the chunks that it was asked for."""
    original, asked = Plane.evaluate, []

    def limited(plane, coordinates, strategy, rho=None):
        if strategy.name != "eager":
            asked.append(strategy.chunk)
            if strategy.chunk > most:
                raise torch.OutOfMemoryError("no room")
        return original(plane, coordinates, strategy, rho)

    monkeypatch.setattr(Plane, "evaluate", limited)
    return asked


def test_out_of_memory_halves_the_chunk_and_starts_again(monkeypatch):
    surface = smooth_surface()
    axes = random_directions(surface)
    expected = evaluate_grid(surface, axes, 9, evaluation=Evaluation(chunk=8))
    asked = out_of_memory_above(monkeypatch, 8)
    grid = evaluate_grid(surface, axes, 9, evaluation=Evaluation(chunk=32))
    assert asked == [32, 16, *[8] * 11]
    assert grid.info.evaluation.chunk == 8
    assert grid.info.evaluation.strategy_note == "out of memory with 32 cells at a time; out of memory with 16 cells at a time"
    assert np.array_equal(grid.losses, expected.losses)


def test_out_of_memory_late_in_a_grid_starts_it_again(monkeypatch, tmp_path: Path):
    surface = smooth_surface()
    axes = random_directions(surface)
    expected = evaluate_grid(surface, axes, 9, evaluation=Evaluation(chunk=8))
    original, asked = Plane.evaluate, []

    def limited(plane, coordinates, strategy, rho=None):
        asked.append(strategy.chunk)
        if len(asked) == 5:
            raise torch.OutOfMemoryError("somebody else took it")
        return original(plane, coordinates, strategy, rho)

    monkeypatch.setattr(Plane, "evaluate", limited)
    grid = evaluate_grid(
        surface, axes, 9, evaluation=Evaluation(chunk=16), checkpointing=Checkpointing(tmp_path / "plane.partial")
    )
    assert grid.info.evaluation.chunk == 8
    assert np.array_equal(grid.losses, expected.losses)


def test_out_of_memory_with_a_single_cell_is_an_error(monkeypatch):
    surface = smooth_surface()
    asked = out_of_memory_above(monkeypatch, 0)
    with pytest.raises(RuntimeError, match="out of memory with a single cell at a time; give the surface smaller batches"):
        evaluate_grid(surface, random_directions(surface), 9, evaluation=Evaluation(chunk=4))
    assert asked == [4, 2, 1]


# Time


@pytest.fixture
def clock(monkeypatch):
    """A clock that a cell takes a second of."""
    seconds, original = [0.0], Plane.evaluate

    def timed(plane, coordinates, strategy, rho=None):
        seconds[0] += len(coordinates)
        return original(plane, coordinates, strategy, rho)

    monkeypatch.setattr(Plane, "evaluate", timed)
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds[0])
    return seconds


def test_progress_tells_the_time_left(clock):
    surface, told = smooth_surface(), []
    evaluate_grid(
        surface,
        random_directions(surface),
        8,
        evaluation=Evaluation(chunk=8),
        checkpointing=Checkpointing(progress=lambda *given: told.append(given)),
    )
    assert told == [(done / 8, 8.0 * (8 - done)) for done in range(3, 8)] + [(1.0, 0.0)]


def test_a_grid_that_would_take_too_long_is_given_up_and_can_go_on(clock, tmp_path: Path):
    surface, file = smooth_surface(), tmp_path / "plane.partial"
    axes = random_directions(surface)
    expected = evaluate_grid(surface, axes, 12, evaluation=Evaluation(chunk=8))
    assert (
        evaluate_grid(surface, axes, 12, evaluation=Evaluation(chunk=8), checkpointing=Checkpointing(max_hours=1)).meta[
            "num_cells"
        ]
        == 144
    )
    with pytest.raises(TimeoutError, match=r"would take about 0\.041 hours, more than max_hours = 0\.01; 3 of"):
        evaluate_grid(surface, axes, 12, evaluation=Evaluation(chunk=8), checkpointing=Checkpointing(file, max_hours=0.01))
    assert file.exists()
    with pytest.raises(TimeoutError, match="more than max_hours"):
        evaluate_grid(surface, axes, 12, evaluation=Evaluation(chunk=8), checkpointing=Checkpointing(file, max_hours=0.01))
    assert np.array_equal(
        evaluate_grid(surface, axes, 12, evaluation=Evaluation(chunk=8), checkpointing=Checkpointing(file)).losses,
        expected.losses,
    )


# Paths


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.net(x)
        return outputs if outputs.mean() > 0 else 2 * outputs


class Clamps(nn.Module):
    """Writes to its own parameter, as a net that keeps its weights within bounds does."""

    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor) -> Tensor:
        self.net[0].weight.data.clamp_(-0.1, 0.1)
        return self.net(x)


def assert_every_cell_is_right(surface: LossSurface, axes: list[Tensor], grid: Grid) -> None:
    for i, alpha in enumerate(grid.coordinates[0]):
        for j, beta in enumerate(grid.coordinates[1]):
            there = float(surface.losses(displacements=(alpha * axes[0] + beta * axes[1])[None]))
            assert grid.losses[i, j] == pytest.approx(there, rel=1e-5, abs=1e-6)


def test_a_net_that_writes_into_its_parameters_is_clamped_at_each_cell():
    net = Clamps()
    with assert_leaves_net_untouched(net):
        surface = surface_of(net, dtype=torch.float64)
        axes = random_directions(surface)
        grid = evaluate_grid(surface, axes, 3)
    inputs, targets = batch()
    for i, alpha in enumerate(grid.coordinates[0]):
        for j, beta in enumerate(grid.coordinates[1]):
            there = surface.layout.unflatten(surface.origin + alpha * axes[0] + beta * axes[1])
            hidden = there["net.0.weight"].clamp(-0.1, 0.1) @ inputs.double().T + there["net.0.bias"][:, None]
            outputs = hidden.tanh().T @ there["net.2.weight"].T + there["net.2.bias"]
            assert grid.losses[i, j] == pytest.approx(float(nn.functional.cross_entropy(outputs, targets)), rel=1e-9)


def test_a_net_that_can_not_be_traced_is_evaluated_point_by_point():
    net = Branches()
    with assert_leaves_net_untouched(net):
        surface = surface_of(net)
        axes = random_directions(surface)
        grid = evaluate_grid(surface, axes, 3)
    assert_every_cell_is_right(surface, axes, grid)
    assert grid.info.evaluation.strategy == "eager"
    assert grid.info.evaluation.strategy_note


@pytest.mark.parametrize("fault", ["wrong", "raises", "compiling raises"])
def test_a_path_that_disagrees_with_the_plain_loop_is_left_and_that_is_said(monkeypatch, fault):
    surface, original = smooth_surface(), Plane.evaluate
    axes = random_directions(surface)

    def faulty(plane, coordinates, strategy, rho=None):
        if fault == "wrong" and strategy.name != "eager":
            return original(plane, coordinates, strategy, rho) + 1e-3 * (coordinates[:, 0] != 0).double()  # not at the centre
        if fault == "raises" and strategy.name != "eager" or strategy.compiled:
            raise RuntimeError("no such operation\nand so on")
        return original(plane, coordinates, strategy, rho)

    monkeypatch.setattr(Plane, "evaluate", faulty)
    rule = Plane.strategy
    compiled = fault == "compiling raises"
    monkeypatch.setattr(Plane, "strategy", lambda *given, **options: replace(rule(*given, **options), compiled=compiled))
    grid = evaluate_grid(surface, axes, 3)
    assert grid.info.evaluation.strategy == ("vectorized" if compiled else "eager")
    assert not grid.info.evaluation.compiled
    note = {"wrong": "vectorized gave [", "raises": "vectorized failed: no such operation"}.get(
        fault, "compiled vectorized failed: no such"
    )
    assert grid.info.evaluation.strategy_note.startswith(note)
    assert "\n" not in grid.info.evaluation.strategy_note
    assert_every_cell_is_right(surface, axes, grid)


def test_a_chunk_of_bfloat16_is_judged_in_the_surfaces_own_dtype(monkeypatch):
    surface = smooth_surface()
    asked, original = [], Plane.evaluate

    def watched(plane, coordinates, strategy, rho=None):
        asked.append((strategy.name, strategy.precision, plane.objective.dtype))
        return original(plane, coordinates, strategy, rho)

    monkeypatch.setattr(Plane, "evaluate", watched)
    grid = evaluate_grid(surface, random_directions(surface), 9, evaluation=Evaluation(precision="bfloat16"))
    assert asked[:3] == [
        ("vectorized", "bfloat16", torch.float32),
        ("vectorized", None, torch.float32),
        ("eager", None, torch.float32),
    ]
    assert grid.info.evaluation.precision == "bfloat16"


def test_no_more_than_a_chunk_is_evaluated_at_a_time(calls):
    surface = smooth_surface()
    evaluate_grid(surface, random_directions(surface), 33, evaluation=Evaluation(chunk=16))
    *chunks, checked, judged = calls.counts
    assert max(chunks) == 16
    assert (checked, judged) == (4, 8)  # 1 at random, the 2 lowest, the centre; 8 at random by the plain loop


# The file itself


def test_a_partial_grid_holds_what_was_put_into_it(tmp_path: Path):
    order = CellOrder((np.linspace(-1, 1, 5), np.linspace(-1, 1, 5))).cells
    store = PartialGrid(tmp_path / "file", lambda: ["this one"], order)
    store.begin(EvaluationStrategy("traced", 4, note="why"))
    with contextlib.suppress(Interrupted), store.resumable.kept():
        store.put(0, np.arange(4.0))
        store.put(6, np.array([9.0]))
        raise Interrupted
    again = PartialGrid(tmp_path / "file", lambda: ["this one"], order)
    assert again.strategy == store.strategy
    assert again.missing(25) == [1, 2, 3, 4, 5]
    assert again.missing(9) == [1, 2]
    assert again.values[order[:4]].tolist() == [0, 1, 2, 3]
    assert again.values[order[24]] == 9
    assert np.isnan(again.values).sum() == 20
    assert sorted(np.flatnonzero(again.covered(5))) == sorted(order[:8])
    assert PartialGrid(tmp_path / "file", lambda: ["another"], order).has_begun is False
    again.begin(EvaluationStrategy("eager", 16))
    assert again.missing(25) == [0, 1]
    assert np.isnan(again.values).all()
