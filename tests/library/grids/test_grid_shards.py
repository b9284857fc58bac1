"""Grids and densities in parts: the same bits as alone, however many parts, whatever is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nets import assert_leaves_net_untouched, mlp
from surfaces import surface_of
from torch import nn

from loss_landscape import (
    Checkpointing,
    Directions,
    Evaluation,
    FunctionOperator,
    HessianOperator,
    LossSurface,
    evaluate_grid,
    random_directions,
    spectral_density,
)
from loss_landscape.grids import grid_spec
from loss_landscape.grids.partial_grid import PartialGrid
from loss_landscape.operators.base import MatrixOperator
from loss_landscape.shards import Shard, shard_files
from loss_landscape.spectra.density import density_share
from loss_landscape.surface.plane import Plane
from loss_landscape.surface.strategy import EvaluationStrategy


class Interrupted(Exception):
    pass


def dense() -> LossSurface:
    torch.manual_seed(0)
    return surface_of(mlp(width=12))


def convolutional() -> LossSurface:
    """Evaluated through a graph, a cell at a time, with batch norm."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(12, 1, 6, 6, generator=draw), torch.randint(0, 3, (12,), generator=draw)
    return LossSurface(net, nn.CrossEntropyLoss(), [images])


SURFACES = {"vectorized": dense, "traced": convolutional}


@pytest.fixture
def calls(monkeypatch):
    """The number of cells of each call of `Plane.evaluate`; with `left`, so many calls until one is interrupted."""
    return Calls(monkeypatch)


class Calls:
    def __init__(self, monkeypatch):
        self.counts, self.left, original = [], None, Plane.evaluate

        def watched(plane, coordinates, strategy, rho=None):
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise Interrupted
            self.counts.append(len(coordinates))
            return original(plane, coordinates, strategy, rho)

        monkeypatch.setattr(Plane, "evaluate", watched)

    def restart(self, left: int | None = None) -> None:
        self.left = left
        self.counts.clear()


def grid_of(surface: LossSurface, file: Path | None, shard: Shard | None = None, **options):
    evaluation = Evaluation(chunk=options.pop("chunk", 16), noise_cells=options.pop("noise_cells", 16))
    checkpointing = Checkpointing(file, shard)
    return evaluate_grid(surface, random_directions(surface), 13, evaluation=evaluation, checkpointing=checkpointing, **options)


def assert_same_grid(one, other) -> None:
    assert one.losses.tobytes() == other.losses.tobytes()
    assert one.evaluated.tobytes() == other.evaluated.tobytes()
    assert [axis.tobytes() for axis in one.coordinates] == [axis.tobytes() for axis in other.coordinates]
    assert {**one.meta, "seconds": 0} == {**other.meta, "seconds": 0}


@pytest.mark.parametrize("kind", SURFACES)
@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_shards_together_have_the_bits_of_the_whole(tmp_path: Path, calls, kind, count):
    """Twenty shards are more than the grid's eleven chunks."""
    surface, file = SURFACES[kind](), tmp_path / "plane.partial.npz"
    whole = grid_of(surface, None)
    assert whole.info.evaluation.strategy == kind
    for index in range(count):
        grid_of(SURFACES[kind](), file, Shard(index, count))
    calls.restart()
    assert_same_grid(grid_of(SURFACES[kind](), file), whole)
    assert sum(calls.counts) <= 8 + 16 + 4, "nothing but the cells that are checked by the plain loop and in float64"
    assert list(tmp_path.iterdir()) == []


def test_each_shard_evaluates_its_own_chunks_alone(tmp_path: Path, calls):
    surface, file = dense(), tmp_path / "plane.partial.npz"
    counts = []
    for index in range(3):
        calls.restart()
        grid_of(surface, file, Shard(index, 3))
        counts.append(sum(calls.counts))
    judged = 16 + 3  # by the first shard: a chunk, and the three cells of the plain loop
    assert [counts[0] - judged, *counts[1:]] == [64, 57, 48]


def test_what_a_shard_returns_is_the_grid_as_far_as_it_is_known(tmp_path: Path):
    surface, file = dense(), tmp_path / "plane.partial.npz"
    whole = grid_of(surface, None)
    first, second = (grid_of(surface, file, Shard(index, 2)) for index in range(2))
    assert first.evaluated.sum() == 5 * 16 + 9
    assert np.isnan(first.losses[~first.evaluated]).all()
    away = first.evaluated & (np.arange(169).reshape(13, 13) != 84)  # the centre, which the whole replaces by the surface's own
    assert np.array_equal(first.losses[away], whole.losses[away])
    assert second.evaluated.all()


def test_a_missing_shard_is_all_that_is_computed_when_the_grid_is_asked_for(tmp_path: Path, calls):
    surface, file = dense(), tmp_path / "plane.partial.npz"
    whole = grid_of(surface, None, noise_cells=0)
    for index in (0, 2):
        grid_of(surface, file, Shard(index, 3))
    calls.restart()
    assert_same_grid(grid_of(surface, file, noise_cells=0), whole)
    assert sum(calls.counts) == 57 + 7  # the plain loop judges one in 25


def test_another_number_of_shards_goes_on_with_what_there_is(tmp_path: Path, calls):
    surface, file = dense(), tmp_path / "plane.partial.npz"
    whole = grid_of(surface, None)
    grid_of(surface, file, Shard(1, 7))
    calls.restart()
    for index in range(2):
        grid_of(surface, file, Shard(index, 2))
    assert sum(calls.counts) == 169 - 32, "chunks 1 and 8 are known"
    assert_same_grid(grid_of(surface, file), whole)


def test_a_shard_cut_off_goes_on_where_it_was(tmp_path: Path, calls):
    surface, file = dense(), tmp_path / "plane.partial.npz"
    whole = grid_of(surface, None)
    grid_of(surface, file, Shard(0, 2))
    calls.restart(left=2)
    with pytest.raises(Interrupted):
        grid_of(surface, file, Shard(1, 2))
    calls.restart()
    grid_of(surface, file, Shard(1, 2))
    assert len(calls.counts) == 5 - 2
    assert_same_grid(grid_of(surface, file), whole)


def test_a_finished_shard_is_not_computed_again(tmp_path: Path, calls):
    surface, file = dense(), tmp_path / "plane.partial.npz"
    grid_of(surface, file, Shard(0, 2))
    calls.restart()
    grid_of(surface, file, Shard(0, 2))
    assert calls.counts == []


def test_shards_go_on_with_what_an_interrupted_grid_left(tmp_path: Path, calls):
    surface, file = dense(), tmp_path / "plane.partial.npz"
    whole = grid_of(surface, None)
    calls.restart(left=2 + 4)
    with pytest.raises(Interrupted):
        grid_of(surface, file)
    calls.restart()
    for index in range(2):
        grid_of(surface, file, Shard(index, 2), chunk=8)  # which the interrupted grid has settled otherwise
    assert sum(calls.counts) == 169 - 5 * 16
    assert_same_grid(grid_of(surface, file), whole)


def test_all_shards_take_the_path_that_the_first_one_settled(tmp_path: Path):
    surface, file = dense(), tmp_path / "plane.partial.npz"
    for index, chunk in enumerate([8, 16, 32]):
        grid_of(surface, file, Shard(index, 3), chunk=chunk)
    grid = grid_of(surface, file, chunk=64)
    assert_same_grid(grid, grid_of(surface, None, chunk=8))


def test_what_another_machine_rounds_otherwise_is_taken_from_the_first_shard(tmp_path: Path, monkeypatch, calls):
    surface, file = dense(), tmp_path / "plane.partial.npz"
    axes = random_directions(surface)
    options = {"resolution": 13, "span": "auto", "evaluation": Evaluation(chunk=16)}
    whole = evaluate_grid(surface, axes, **options)
    evaluate_grid(surface, axes, **options, checkpointing=Checkpointing(file, Shard(0, 2)))
    original = LossSurface.loss
    monkeypatch.setattr(LossSurface, "loss", lambda surface: original(surface) * (1 + 1e-9))
    other = Directions(tuple(axis * (1 + 1e-6) for axis in axes), axes.info)
    evaluate_grid(surface, other, **options, checkpointing=Checkpointing(file, Shard(1, 2)))
    calls.restart()
    grid = evaluate_grid(surface, other, **options, checkpointing=Checkpointing(file))
    assert grid.losses.tobytes() == whole.losses.tobytes()
    assert grid.info.baseline_loss == whole.info.baseline_loss
    assert grid.info.span_found == whole.info.span_found
    assert max(calls.counts) < 16 + 4 + 1, "what is checked, no chunk after another"


@pytest.mark.parametrize("change", ["net", "axes", "span", "resolution", "precision", "data", "rho"])
def test_shards_of_another_grid_are_refused_by_shards_and_passed_over_by_a_grid(tmp_path: Path, change):
    surface, file = dense(), tmp_path / "plane.partial.npz"
    grid_of(surface, file, Shard(0, 2))
    other = surface_of(mlp(width=12)) if change == "net" else surface
    if change == "data":
        torch.manual_seed(0)
        other = LossSurface(mlp(width=12), nn.CrossEntropyLoss(), [(torch.ones(8, 6), torch.zeros(8, dtype=torch.long))])
    axes = random_directions(other, generator=torch.Generator().manual_seed(int(change == "axes")))
    evaluation = Evaluation(chunk=16, precision="bfloat16" if change == "precision" else None)
    given = {"span": {"span": (-1, 0.5)}, "resolution": {"resolution": 9}, "rho": {"rho": 0.1}}.get(change, {})
    options = {"resolution": 13, "evaluation": evaluation, **given}
    with pytest.raises(ValueError, match="are of another grid; give each grid a partial file of its own"):
        evaluate_grid(other, axes, checkpointing=Checkpointing(file, shard=Shard(1, 2)), **options)
    expected = evaluate_grid(other, axes, **options)
    assert_same_grid(evaluate_grid(other, axes, checkpointing=Checkpointing(file), **options), expected)


def test_of_two_first_shards_the_one_that_publishes_first_holds_for_both(tmp_path: Path, monkeypatch):
    """The other has settled a chunk of its own by then."""
    surface, file = dense(), tmp_path / "plane.partial.npz"
    original = grid_spec.GridSpec.save_first

    def overtaken(self, where):
        monkeypatch.undo()
        grid_of(surface, file, Shard(1, 2), chunk=8)
        return original(self, where)

    monkeypatch.setattr(grid_spec.GridSpec, "save_first", overtaken)
    grid_of(surface, file, Shard(0, 2), chunk=32)
    assert_same_grid(grid_of(surface, file), grid_of(surface, None, chunk=8))


def test_the_net_is_left_alone(tmp_path: Path):
    surface = dense()
    with assert_leaves_net_untouched(surface.objective.net.module):
        grid_of(surface, tmp_path / "plane.npz", Shard(0, 2))


def test_a_shard_out_of_memory_says_what_to_give(tmp_path: Path, monkeypatch):
    surface, file = dense(), tmp_path / "plane.partial.npz"
    grid_of(surface, file, Shard(0, 2))

    def no_room(*given):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(Plane, "evaluate", no_room)
    with pytest.raises(
        RuntimeError, match="out of memory with 16 cells at a time, which all shards of a grid share: give a smaller"
    ):
        grid_of(surface, file, Shard(1, 2))


def test_out_of_memory_while_the_path_is_settled_halves_the_chunk_for_all(tmp_path: Path, monkeypatch):
    surface, file = dense(), tmp_path / "plane.partial.npz"
    expected = grid_of(surface, None, chunk=8)
    original = Plane.evaluate

    def limited(plane, coordinates, strategy, rho=None):
        if strategy.name != "eager" and strategy.chunk > 8:
            raise torch.OutOfMemoryError("no room")
        return original(plane, coordinates, strategy, rho)

    monkeypatch.setattr(Plane, "evaluate", limited)
    for index in range(2):
        grid_of(surface, file, Shard(index, 2))
    grid = grid_of(surface, file)
    assert grid.losses.tobytes() == expected.losses.tobytes()
    assert grid.info.evaluation.strategy_note == "out of memory with 16 cells at a time"


def test_chunks_of_another_size_are_not_taken_over(tmp_path: Path):
    order = np.arange(8)
    one, other = (PartialGrid(tmp_path / name, lambda: ["this one"], order) for name in ("one", "other"))
    one.begin(EvaluationStrategy("eager", 4))
    one.put(1, np.ones(4))
    one.resumable.save()
    other.begin(EvaluationStrategy("eager", 2))
    assert other.absorb(tmp_path / "one") == 0.0
    assert not other.done.any()


@pytest.mark.parametrize(("partial", "tolerance"), [(False, None), (True, 0.01)])
def test_a_shard_wants_a_file_and_no_tolerance(tmp_path: Path, partial, tolerance):
    message = (
        "a shard takes no tolerance: levels wait" if partial else "a shard keeps its part beside a file that all shards name"
    )
    with pytest.raises(ValueError, match=message):
        grid_of(dense(), tmp_path / "plane.npz" if partial else None, Shard(0, 2), tolerance=tolerance)


@pytest.mark.parametrize(("index", "count"), [(2, 2), (-1, 2), (0, 0)])
def test_a_shard_is_one_of_its_count(index, count):
    with pytest.raises(ValueError, match=f"shard {index} of {count}: expected a number from 0 to count − 1"):
        Shard(index, count)


# Densities


def density_of(surface: LossSurface, file: Path | None):
    return spectral_density(
        HessianOperator(surface), 5, 8, generator=torch.Generator().manual_seed(3), checkpointing=Checkpointing(file)
    )


def share_of(surface: LossSurface, file: Path, shard: Shard) -> int:
    """Compute a shard's probes; how many products that took."""
    operator = HessianOperator(surface)
    density_share(operator, checkpointing=Checkpointing(file, shard), num_probes=5, lanczos_steps=8, generator=3)
    return operator.num_products


def assert_same_density(one, other) -> None:
    assert one.nodes.numpy().tobytes() == other.nodes.numpy().tobytes()
    assert one.weights.numpy().tobytes() == other.weights.numpy().tobytes()
    assert (one.size, one.zero_threshold, one.note) == (other.size, other.zero_threshold, other.note)


@pytest.mark.parametrize("kind", SURFACES)
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_density_from_shards_has_the_bits_of_the_whole(tmp_path: Path, kind, count):
    file = tmp_path / "density.npz"
    whole = density_of(SURFACES[kind](), None)
    products = [share_of(SURFACES[kind](), file, Shard(index, count)) for index in range(count)]
    checks = count - 1 if count < 5 else 4  # one product each, to tell the operator from others
    assert sum(products) == 5 * 8 + checks
    assert_same_density(density_of(SURFACES[kind](), file), whole)


def test_a_missing_probe_is_all_that_is_computed(tmp_path: Path):
    surface, file = dense(), tmp_path / "density.npz"
    for index in (0, 2):
        share_of(surface, file, Shard(index, 3))
    operator = HessianOperator(surface)
    density = spectral_density(operator, 5, 8, generator=3, checkpointing=Checkpointing(file))
    assert operator.num_products == 2 * 8 + 1
    assert_same_density(density, density_of(surface, None))


def test_a_density_cut_off_goes_on_after_the_last_whole_probe(tmp_path: Path):
    surface, file = dense(), tmp_path / "density.npz"
    operator = HessianOperator(surface)
    original = operator.matmat

    def cut_off(vectors):
        if operator.num_products > 20:
            raise Interrupted
        return original(vectors)

    operator.matmat = cut_off
    with pytest.raises(Interrupted):
        spectral_density(operator, 5, 8, generator=3, checkpointing=Checkpointing(file))
    operator = HessianOperator(surface)
    density = spectral_density(operator, 5, 8, generator=3, checkpointing=Checkpointing(file))
    assert operator.num_products == 3 * 8 + 1
    assert_same_density(density, density_of(surface, None))


SPREAD = torch.linspace(-1, 1, 40, dtype=torch.float64)
ALIKE = {  # two of about the same mean each
    "matrices": [MatrixOperator(torch.diag(SPREAD * size)) for size in (1, 1.001)],
    "functions": [FunctionOperator(lambda v, s=size: s * SPREAD * v, size=40, dtype=torch.float64) for size in (1, 1.1)],
    "points": [HessianOperator(surface) for surface in (dense(), dense().moved_to(dense().origin * (1 + 1e-6)))],
}


@pytest.mark.parametrize("kind", ALIKE)
def test_probes_of_a_similar_operator_are_not_used(tmp_path: Path, kind):
    file, (one, other) = tmp_path / "density.npz", ALIKE[kind]
    spectral_density(one, 3, 6, checkpointing=Checkpointing(file))
    assert_same_density(spectral_density(other, 3, 6, checkpointing=Checkpointing(file)), spectral_density(other, 3, 6))


@pytest.mark.parametrize("change", ["operator", "draws", "steps"])
def test_probes_of_another_density_are_not_used(tmp_path: Path, change):
    file, draw = tmp_path / "density.npz", torch.Generator().manual_seed(0)
    matrix = torch.randn(40, 40, generator=draw, dtype=torch.float64)
    one, other = MatrixOperator(matrix + matrix.T), MatrixOperator(matrix + matrix.T + torch.eye(40) * (change == "operator"))
    spectral_density(one, 3, 6, generator=torch.Generator().manual_seed(1), checkpointing=Checkpointing(file))
    steps, seed = 6 + (change == "steps"), 1 + (change == "draws")
    expected = spectral_density(other, 3, steps, generator=torch.Generator().manual_seed(seed))
    assert_same_density(
        spectral_density(other, 3, steps, generator=torch.Generator().manual_seed(seed), checkpointing=Checkpointing(file)),
        expected,
    )


def test_files_of_shards_are_told_from_others(tmp_path: Path):
    file = tmp_path / "a[1].partial.npz"
    for shard in (Shard(0, 2), Shard(11, 12)):
        shard.beside(file).touch()
    (tmp_path / "a1.partial.shard_0_of_2.npz").touch()
    assert shard_files(file) == [tmp_path / "a[1].partial.shard_0_of_2.npz", tmp_path / "a[1].partial.shard_11_of_12.npz"]
