"""A strategy that is right at the origin and at the corners, and wrong inside, is found, and the grid taken by the plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from surfaces import surface_of
from torch import Tensor, nn
from torch.nn import functional as F

from loss_landscape import (
    Checkpointing,
    Evaluation,
    LossSurface,
    barrier,
    evaluate_grid,
    line,
    path_losses,
    random_directions,
)
from loss_landscape.graphs import tracing
from loss_landscape.surface.cell_graph import BoundCells


def wrong_between(monkeypatch, low: float, high: float, by: float = 1e-3) -> None:
    """Every graph's losses are off where the largest coordinate lies between two values, as one with a count baked in."""
    rightly = BoundCells.losses

    def losses(self, coordinates: Tensor, strategy) -> Tensor:
        reach = coordinates.abs().amax(dim=1)
        return rightly(self, coordinates, strategy) + by * ((reach > low) & (reach < high)).to(coordinates.device)

    monkeypatch.setattr(BoundCells, "losses", losses)


def eager(surface: LossSurface, directions, *, rho: float | None = None, resolution: int = 21) -> np.ndarray:
    axis = torch.linspace(-1, 1, resolution, dtype=torch.float64)
    coordinates = torch.cartesian_prod(*[axis] * len(directions)).reshape(-1, len(directions))
    losses = surface.plane(directions).plain_losses(coordinates, rho)
    return losses.reshape([resolution] * len(directions)).numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rho", [None, 0.05])
@pytest.mark.parametrize("noise_cells", [None, 0])
def test_a_graph_that_is_wrong_inside_is_found(monkeypatch, dtype, rho, noise_cells):
    surface = surface_of(dtype=dtype)
    directions = random_directions(surface)
    wrong_between(monkeypatch, 0.3, 0.95)
    grid = evaluate_grid(surface, directions, 21, rho=rho, evaluation=Evaluation(noise_cells=noise_cells))
    assert grid.info.evaluation.strategy == "eager"
    assert "vectorized gave" in grid.info.evaluation.strategy_note
    assert grid.losses == pytest.approx(eager(surface, directions, rho=rho), rel=1e-7)
    if dtype == torch.float32 and noise_cells is None:
        assert grid.info.noise.floor < 1e-5  # of the plain loop: the error is not passed off as rounding


@pytest.mark.parametrize("compiled_or_not", ["vectorized", "traced"])
def test_on_a_line_and_a_volume_too(monkeypatch, compiled_or_not):
    if compiled_or_not == "traced":
        monkeypatch.setattr("loss_landscape.surface.strategy.CHUNK_BYTES", {"cpu": 1})
    wrong_between(monkeypatch, 0.2, 0.95)
    surface = surface_of()
    for count, resolution in ((1, 41), (3, 5)):
        grid = evaluate_grid(surface, random_directions(surface, count), resolution)
        assert grid.info.evaluation.strategy == "eager"
        assert f"{compiled_or_not} gave" in grid.info.evaluation.strategy_note


def test_between_two_nets_as_well(monkeypatch):
    surface = surface_of()
    start, end = surface.origin, surface.origin + random_directions(surface, 1, normalization="model")[0]
    expected = [surface.losses(points=torch.stack([start + t * (end - start)])).item() for t in np.linspace(0, 1, 25)]
    wrong_between(monkeypatch, 0.2, 0.9, by=0.5)
    found = barrier(surface, start, end)
    assert found.info.evaluation.strategy == "eager"
    assert found.losses.tolist() == pytest.approx(expected, rel=1e-6)
    assert path_losses(surface, line(start, end), num_points=61).barrier == pytest.approx(found.barrier, abs=1e-3)


def test_a_plane_judges_cells_all_the_way_out(monkeypatch):
    surface = surface_of()
    directions = random_directions(surface)
    wrong_between(monkeypatch, 0.4, 0.8)
    coordinates = torch.linspace(-1, 1, 33, dtype=torch.float64)[:, None] * torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    plane = surface.plane(directions)
    assert torch.equal(plane.losses(coordinates), plane.plain_losses(coordinates))


def test_what_is_kept_of_the_wrong_strategy_is_thrown_away(monkeypatch, tmp_path):
    surface, file = surface_of(), tmp_path / "grid.npz"
    directions = random_directions(surface)
    wrong_between(monkeypatch, 0.3, 0.95)
    grid = evaluate_grid(surface, directions, 11, checkpointing=Checkpointing(file=file))
    again = evaluate_grid(surface, directions, 11, checkpointing=Checkpointing(file=file))
    assert np.array_equal(grid.losses, again.losses)
    assert grid.info.evaluation.strategy == "eager"


class EarlyExit(nn.Module):
    """Examples that it is sure of leave after the first head; how many do depends on the parameters."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.body, self.first, self.rest, self.last = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x).tanh()
        early = self.first(hidden)
        unsure = early.softmax(1).amax(1) < 0.5
        out = early.clone()
        rows = hidden[unsure]
        if rows.numel():
            out[unsure] = self.last(self.rest(rows).tanh())
        return out


def hardest_half(outputs: Tensor, targets: Tensor) -> Tensor:
    losses = F.cross_entropy(outputs, targets, reduction="none")
    return losses[losses > 0.9].sum() / max(int((losses > 0.9).sum()), 1)


@pytest.mark.parametrize("guarded_by", ["tracing", "cells"])
@pytest.mark.parametrize("seed", range(3))
def test_every_cell_of_a_net_with_an_early_exit_is_the_plain_loops(monkeypatch, guarded_by, seed):
    if guarded_by == "cells":  # as if tracing had let it pass
        monkeypatch.setattr(tracing, "looked_at", lambda *_: [])
    draw = torch.Generator().manual_seed(seed)
    batch = torch.randn(24, 6, generator=draw), torch.randint(0, 3, (24,), generator=draw)
    for net, loss in ((EarlyExit(), nn.CrossEntropyLoss()), (nn.Linear(6, 3), hardest_half)):
        surface = LossSurface(net, loss, [batch], batch_weight=lambda _: 1.0)
        directions = random_directions(surface)
        grid = evaluate_grid(surface, directions, 9)
        assert grid.losses == pytest.approx(eager(surface, directions, resolution=9), rel=1e-5, abs=1e-6)
